-- verify entries: invariants of each entry that is marked as a leg of a revert, of every writer.
--
-- {ledger}, {reverted} and {hash_of_reverted} are as in the statement apply, {outcomes} as in
-- verify outcomes.
--   $1  first  uuid  entries from this id
--   $2  last   uuid  to this one
--   $3  platform  uuid  the platform's own account
--
-- Returns a row for each violation. The last row has no code: it has the number of legs, the sum of
-- the customers' credits, and the sum of the platform's debits. Entries that name a missing usage
-- are left out of both sums, because Frontier deletes only the customer's entries. revertd's own
-- legs are recognized by the platform's leg, whose id has version 8.
WITH leg AS MATERIALIZED (
    SELECT t.id, t.account_id, t.type, t.amount,
        t.type = 'debit' AND substr(t.id::text, 15, 1) = '8'
            AND (t.account_id = $3 OR t.source LIKE 'system.revert.%') AS own,
        CASE WHEN {reverted} ~ '^[0-9a-f]{32}$' THEN ({reverted})::uuid END AS named
    FROM {ledger}.billing_transactions t
    WHERE t.id >= $1 AND t.id <= $2
        AND (t.metadata ? 'revert_request_using'
            OR t.source LIKE 'system.revert.%' AND substr(t.id::text, 15, 1) = '8')
),
looked_up AS MATERIALIZED (
    SELECT l.id, l.account_id, l.type, l.amount, l.own, l.named,
        u.id AS usage_id, u.amount AS usage_amount,
        CASE WHEN l.own THEN (
            SELECT true FROM {outcomes} o
            WHERE o.usage_id = l.named AND o.refusal IS NULL
                AND o.platform_transaction_id = l.id LIMIT 1
        ) END AS has_outcome,
        given.first, given.total
    FROM leg l
    LEFT JOIN LATERAL (
        SELECT * FROM {ledger}.billing_transactions t WHERE t.id = l.named LIMIT 1
    ) u ON true
    -- The reverts of the usage in its account: the first one, so that a usage is reported once, and
    -- their sum.
    CROSS JOIN LATERAL (
        SELECT (array_agg(t.id ORDER BY t.id))[1] AS first, sum(t.amount) AS total
        FROM {ledger}.billing_transactions t
        WHERE l.type = 'credit' AND l.account_id = u.account_id AND u.type = 'debit'
            AND {hash_of_reverted}
                = hashtextextended(replace(l.named::text, '-', '') COLLATE "C", 0)
            AND {reverted} = replace(l.named::text, '-', '')
            AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
            AND t.account_id IS NOT DISTINCT FROM l.account_id
    ) given
),
wrong AS (
    SELECT 'LEG_WITHOUT_OUTCOME' AS code, l.id, l.named, l.account_id FROM looked_up l
    WHERE l.own AND l.has_outcome IS NULL
    UNION ALL
    -- An edited usage counts with the larger of its amount now and its amount in revertd's
    -- outcomes.
    SELECT CASE WHEN own.total > greatest(l.usage_amount, own.usage_amount)
        THEN 'REVERTS_EXCEED_USAGE' ELSE 'EXCESS_WITH_OTHERS' END, l.id, l.named, l.account_id
    FROM looked_up l
    CROSS JOIN LATERAL (
        SELECT sum(o.amount) AS total, max(o.usage_amount) AS usage_amount FROM {outcomes} o
        WHERE o.usage_id = l.usage_id AND o.refusal IS NULL
    ) own
    WHERE l.first = l.id AND l.total > l.usage_amount
        AND l.total > greatest(l.usage_amount, own.usage_amount)
)
SELECT w.code, w.id, w.named, w.account_id,
    NULL::bigint AS legs, NULL::text AS given, NULL::text AS taken
FROM wrong w
UNION ALL
SELECT NULL, NULL, NULL, NULL, count(*),
    coalesce(sum(l.amount) FILTER (WHERE l.type = 'credit' AND l.usage_id IS NOT NULL), 0)::text,
    coalesce(sum(l.amount) FILTER (WHERE l.type = 'debit' AND l.usage_id IS NOT NULL), 0)::text
FROM looked_up l
-- The reporter of a usage chooses its metadata. An entry with the opposite type is therefore no
-- leg.
WHERE l.type = 'credit' AND l.account_id IS DISTINCT FROM $3
    OR l.type = 'debit' AND (l.account_id = $3 OR l.own)
