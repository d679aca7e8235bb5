-- verify indexes: indexes of the entries that are missing or invalid.
--
--   $1  schema  text  of Frontier's tables
--
-- Returns the code and the name of each such index.
WITH found AS (
    SELECT x.relname::text AS name, i.indisvalid AS counts
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(format('%I.billing_transactions', $1::text))
    UNION ALL
    SELECT 'billing_transactions.id (unique)', bool_or(i.indisvalid)
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = to_regclass(format('%I.billing_transactions', $1::text))
        AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = 'id'
    HAVING count(*) > 0
)
SELECT CASE WHEN f.name IS NULL THEN 'INDEX_MISSING' ELSE 'INDEX_WITHOUT_EFFECT' END AS code,
    e.name
FROM (VALUES ('billing_transactions_revertd_idx'), ('billing_transactions.id (unique)')) e (name)
LEFT JOIN found f USING (name)
WHERE f.counts IS NOT TRUE
ORDER BY e.name
