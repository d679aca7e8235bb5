-- Settings of the server that every role may read.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_num,
    pg_encoding_to_char(d.encoding)::text AS encoding,
    pg_is_in_recovery() AS standby,
    current_setting('transaction_read_only') = 'on' AS read_only,
    current_setting('fsync') = 'on' AS fsync,
    current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS standby_names,
    current_setting('session_replication_role') AS replication_role,
    current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS autovacuum,
    current_setting('max_connections')::int AS connections,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
    (SELECT sum(s.numbackends)::int FROM pg_stat_database s) AS used,
    r.rolconnlimit AS role_limit,
    d.datconnlimit AS database_limit,
    r.rolsuper AS superuser,
    quote_ident(r.rolname) AS role,
    quote_ident(d.datname) AS database,
    pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE') AS sees_sessions,
    age(d.datfrozenxid) AS xid_age,
    mxid_age(d.datminmxid) AS multixact_age,
    has_database_privilege(d.oid, 'CREATE') AS may_create
FROM pg_database d, pg_roles r
WHERE d.datname = current_database() AND r.rolname = current_user
