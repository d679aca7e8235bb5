-- verify schema: which of the constraints, triggers and indexes that money depends on are missing, or do not count.
--
--   $1  schema  text  of Frontier's tables
--
-- Returns a row for each that is not as it should be: the code, and its name.
WITH expected (kind, name) AS (VALUES
    ('constraint', 'outcomes_pkey'),
    ('constraint', 'outcomes_amount_positive'),
    ('constraint', 'outcomes_refusal_known'),
    ('constraint', 'outcomes_legs_belong_together'),
    ('constraint', 'outcomes_within_usage'),
    ('constraint', 'outcomes_others_within_before'),
    ('constraint', 'outcomes_once'),
    ('index', 'outcomes_revert_no'),
    ('trigger', 'outcomes_chain'),
    ('entries', 'billing_transactions_revertd_idx'),
    ('entries', 'billing_transactions.id (unique)')
),
found AS (
    SELECT 'constraint' AS kind, c.conname::text AS name, c.convalidated AS counts
    FROM pg_constraint c WHERE c.conrelid = 'revertd.outcomes'::regclass
    UNION ALL
    SELECT 'index', x.relname::text, i.indisvalid AND i.indisunique AND i.indpred IS NOT NULL
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = 'revertd.outcomes'::regclass
    UNION ALL
    -- Enabled for what ordinary sessions write.
    SELECT 'trigger', t.tgname::text, t.tgenabled IN ('O', 'A')
    FROM pg_trigger t WHERE t.tgrelid = 'revertd.outcomes'::regclass
    UNION ALL
    SELECT 'entries', x.relname::text, i.indisvalid
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(format('%I.billing_transactions', $1::text))
    UNION ALL
    SELECT 'entries', 'billing_transactions.id (unique)', bool_or(i.indisvalid)
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = to_regclass(format('%I.billing_transactions', $1::text))
        AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = 'id'
    HAVING count(*) > 0
)
SELECT CASE e.kind WHEN 'constraint' THEN 'CONSTRAINT_' WHEN 'trigger' THEN 'TRIGGER_' ELSE 'INDEX_' END
    || CASE WHEN f.name IS NULL THEN 'MISSING' ELSE 'WITHOUT_EFFECT' END AS code, e.name
FROM expected e LEFT JOIN found f USING (kind, name)
WHERE f.counts IS NOT TRUE
ORDER BY e.kind, e.name
