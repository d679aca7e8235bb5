-- The role's privileges on the tables that a worker uses.
--   $1  text  schema of Frontier's tables
SELECT n.nspname::text AS schema, format('%I.%I', n.nspname, t.relname) AS quoted,
    t.relname::text AS table_name,
    has_table_privilege(t.oid, 'SELECT') AS may_select,
    has_any_column_privilege(t.oid, 'INSERT') AS may_insert,
    has_table_privilege(t.oid, 'UPDATE') AS may_update,
    has_table_privilege(t.oid, 'DELETE') AS may_delete,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0
        AND NOT a.attisdropped AND has_column_privilege(t.oid, a.attnum, 'SELECT')) AS columns
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname IN ($1, 'revertd') AND t.relkind IN ('r', 'p', 'v', 'f')
