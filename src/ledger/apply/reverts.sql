-- reverts: what is reverted of each usage, by revertd's own record and by the ledger, and the
-- numbers that ids of new entries may have.
--
-- {ledger}, {reverted}, {hash_of_reverted} and {indexed} are as in facts.sql.
--   $1 usage_id   uuid[]    a debit of the account
--   $2 account_id uuid[]
--   $3 wanted     integer[] how many numbers of new entries are wanted
SELECT r.usage_id,
    own.revert_no, own.total, own.metadata, ledger.number, ledger.total, earliest.metadata,
    free.numbers
FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS r (usage_id, account_id, wanted)
CROSS JOIN LATERAL (
    SELECT t.created_at FROM {ledger}.billing_transactions t
    WHERE t.id = r.usage_id AND t.account_id = r.account_id LIMIT 1
) usage
LEFT JOIN LATERAL (
    SELECT o.revert_no,
        o.reverted_before - coalesce(o.reverted_by_others, 0) + o.amount AS total,
        jsonb_build_object('transaction_id', o.transaction_id::text, 'amount', o.amount::text,
            'time', to_char(o.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
            AS metadata
    FROM revertd.outcomes o
    WHERE o.usage_id = r.usage_id AND o.refusal IS NULL
    ORDER BY o.revert_no DESC LIMIT 1
) own ON true
-- The number of reverts in the ledger (credits, in any spelling); their sum, limited to the largest
-- bigint, without negative credits, which give nothing back; and the number of rows that Frontier
-- counts for the id of its next entry: of any type, not older than the usage, in exactly this
-- spelling.
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE t.type = 'credit') AS number,
        least(coalesce(sum(t.amount) FILTER (WHERE t.type = 'credit' AND t.amount > 0), 0),
            9223372036854775807)::bigint AS total,
        count(*) FILTER (WHERE t.metadata ->> 'revert_request_using' = r.usage_id::text
            AND t.created_at >= usage.created_at) AS next_number
    FROM {ledger}.billing_transactions t
    WHERE {hash_of_reverted}
            = hashtextextended(replace(r.usage_id::text, '-', '') COLLATE "C", 0)
        AND {reverted} = replace(r.usage_id::text, '-', '')
        AND {indexed}
        AND t.account_id IS NOT DISTINCT FROM r.account_id
) ledger
-- Without a time that an event cannot contain: infinity, or beyond the years of four digits.
LEFT JOIN LATERAL (
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'transaction_id', t.id::text, 'amount', t.amount::text,
        'time', CASE WHEN t.created_at >= '0001-01-01 00:00+00'
                AND t.created_at < '10000-01-01 00:00+00'
            THEN to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END))
        AS metadata
    FROM {ledger}.billing_transactions t
    WHERE ledger.number > 0
        AND {hash_of_reverted}
            = hashtextextended(replace(r.usage_id::text, '-', '') COLLATE "C", 0)
        AND {reverted} = replace(r.usage_id::text, '-', '')
        AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
        AND t.account_id IS NOT DISTINCT FROM r.account_id
    ORDER BY t.created_at, t.id LIMIT 1
) earliest ON true
-- The number that Frontier would take next, and the numbers after it, without those whose ids an
-- entry or an outcome of the usage has. generate_series in the select list generates only as many
-- rows as are needed.
CROSS JOIN LATERAL (
    SELECT ARRAY(
        SELECT numbered.n FROM (
            SELECT s.n, revertd.entry_id(r.usage_id, s.n, r.account_id) AS id
            FROM (
                SELECT generate_series(ledger.next_number, ledger.next_number + r.wanted + 1000)
                    AS n
            ) s
            OFFSET 0
        ) numbered
        WHERE (
            SELECT true FROM {ledger}.billing_transactions t
            WHERE t.id IN (numbered.id, revertd.platform_leg(numbered.id)) LIMIT 1
        ) IS NULL AND (
            SELECT true FROM revertd.outcomes o
            WHERE o.usage_id = r.usage_id AND o.refusal IS NULL
                AND o.transaction_id = numbered.id LIMIT 1
        ) IS NULL
        LIMIT r.wanted
    ) AS numbers
) free
