-- What there is on revertd's own tables. `works`: it is valid, built and switched on. Constraints by which a column must
-- not be NULL have no place here: only from version 18 on are they listed.
SELECT 'constraint' AS kind, t.relname::text AS table_name, c.conname::text AS name, c.convalidated AND coalesce(x.indisvalid AND x.indisready AND x.indislive, true) AS works
FROM pg_constraint c LEFT JOIN pg_index x ON x.indexrelid = c.conindid JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd' AND c.contype IN ('p', 'u', 'c', 'f', 'x')
UNION ALL
SELECT 'index', t.relname::text, i.relname::text, x.indisvalid AND x.indisready AND x.indislive
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd'
UNION ALL
SELECT 'trigger', t.relname::text, g.tgname::text, g.tgenabled IN ('O', 'A')
FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd' AND NOT g.tgisinternal
UNION ALL
SELECT DISTINCT 'function', '', p.proname::text, true
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'revertd'
