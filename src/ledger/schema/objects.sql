-- The objects in revertd's schema. `form`, `columns` and `definition` describe an object; `fault`
-- is the reason why it has no effect. NOT NULL constraints are left out, because only PostgreSQL 18
-- or later lists them. The columns contain the same fact in every version.
SELECT 'constraint' AS kind, t.relname::text AS table_name, c.conname::text AS name,
    c.contype::text AS form,
    ARRAY(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)) AS columns,
    coalesce(pg_get_expr(c.conbin, c.conrelid), '') AS definition,
    CASE WHEN NOT (x.indisvalid AND x.indisready AND x.indislive) THEN 'unbuilt'
        WHEN NOT c.convalidated THEN 'unvalidated' END AS fault
FROM pg_constraint c LEFT JOIN pg_index x ON x.indexrelid = c.conindid AND c.contype <> 'f'
    JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd' AND c.contype IN ('p', 'u', 'c', 'f', 'x')
UNION ALL
SELECT 'index', t.relname::text, i.relname::text, CASE WHEN x.indisunique THEN 'unique' ELSE '' END,
    ARRAY(SELECT pg_get_indexdef(x.indexrelid, k, true)
        FROM generate_series(1, x.indnkeyatts::int) k),
    coalesce(pg_get_expr(x.indpred, x.indrelid), ''),
    CASE WHEN NOT (x.indisvalid AND x.indisready AND x.indislive) THEN 'unbuilt' END
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd'
UNION ALL
SELECT 'trigger', t.relname::text, g.tgname::text, g.tgtype::text,
    ARRAY(SELECT p.proname::text FROM pg_proc p JOIN pg_namespace h ON h.oid = p.pronamespace
        WHERE p.oid = g.tgfoid AND h.nspname = 'revertd'),
    coalesce(substring(pg_get_triggerdef(g.oid) FROM ' WHEN (\(.*\)) EXECUTE '), ''),
    CASE WHEN g.tgenabled NOT IN ('O', 'A') THEN 'disabled' END
FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd' AND NOT g.tgisinternal
UNION ALL
SELECT 'function', '', p.proname::text, '', ARRAY[]::text[], p.prosrc, NULL
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'revertd'
UNION ALL
SELECT 'column', t.relname::text, a.attname::text, '', ARRAY[]::text[], '',
    CASE WHEN NOT a.attnotnull THEN 'nullable' END
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = 'revertd' AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
