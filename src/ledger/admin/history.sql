-- history: a usage and the entries that revert it, by index look-ups only.
--   $1  usage_id  uuid
-- {outcomes} are all outcomes, including archived ones.
-- The index holds the customers' credits of every writer. The other leg of a revert by revertd is
-- found by its id. Other writers' debits on the platform's account have no index, and are not
-- searched.
WITH credit AS (
    SELECT t.id FROM {ledger}.billing_transactions t
    WHERE {hash_of_reverted} = hashtextextended(replace($1::uuid::text, '-', '') COLLATE "C", 0)
        AND {reverted} = replace($1::uuid::text, '-', '')
        AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
)
SELECT entry.id, entry.account_id, entry.type::text, entry.amount, entry.source::text,
    -- Other writers' times may be infinite, or beyond the years of four digits.
    CASE WHEN entry.created_at >= '0001-01-01 00:00+00'
            AND entry.created_at < '10000-01-01 00:00+00'
        THEN entry.created_at END AS told_at,
    entry.id = $1::uuid AS is_usage,
    EXISTS (
        SELECT FROM {outcomes} o
        WHERE o.usage_id = $1::uuid AND o.refusal IS NULL
            AND entry.id IN (o.transaction_id, o.platform_transaction_id)
    ) AS is_ours
FROM (
    SELECT $1::uuid AS id
    UNION SELECT c.id FROM credit c
    UNION SELECT revertd.platform_leg(c.id) FROM credit c
) named
CROSS JOIN LATERAL (
    SELECT t.id, t.account_id, t.type, t.amount, t.source, t.created_at
    FROM {ledger}.billing_transactions t WHERE t.id = named.id LIMIT 1
) entry
ORDER BY is_usage DESC, entry.created_at, entry.type, entry.id
