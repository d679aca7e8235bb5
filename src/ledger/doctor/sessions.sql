-- Sessions that block workers or VACUUM, the first ten of each kind.
--   $1  text    schema of Frontier's tables
--   $2  float8  seconds after which a transaction is old
(SELECT 'old' AS kind, a.pid,
    format('(%s, %s) open for %s s', coalesce(nullif(a.application_name, ''), 'unnamed'),
        coalesce(a.state, 'unknown'), extract(epoch FROM now() - a.xact_start)::int) AS seen
FROM pg_stat_activity a
WHERE a.xact_start < now() - make_interval(secs => $2) AND a.datname = current_database()
    AND a.pid <> pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend'
ORDER BY a.xact_start LIMIT 10)
UNION ALL
-- A lock request blocks later requests even before it is granted.
(SELECT DISTINCT 'lock', l.pid,
    format('%s %s on %s.%s', CASE WHEN l.granted THEN 'holds' ELSE 'waits for' END, l.mode,
        n.nspname, t.relname)
FROM pg_locks l JOIN pg_class t ON t.oid = l.relation JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.pid <> pg_backend_pid()
    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND (n.nspname = 'revertd' AND t.relkind = 'r' OR n.nspname = $1
        AND t.relname IN ('organizations', 'projects', 'billing_customers', 'billing_transactions'))
ORDER BY 3, 2 LIMIT 10)
