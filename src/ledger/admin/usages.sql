-- usages: usages of accounts that a request could revert now, the earliest first. It only reads.
-- {reverted} is the usage that an entry's metadata names, and {hash_of_reverted} its hash.
--   $1  accounts    uuid[]
--   $2  since       timestamptz       NULL: no filter; the next two likewise
--   $3  until       timestamptz
--   $4  source      text
--   $5  keys        text[]            keys of the metadata that a usage must have; with $6
--   $6  values      text[]            their values, as text
--   $7  cumulative  boolean           the policy
--   $8  max_age     double precision  seconds after which a usage cannot be reverted; NULL: never
--   $9  most        bigint            NULL: all
SELECT u.id, u.account_id, u.amount - u.reverted AS remaining, u.reverted, u.created_at
FROM (
    SELECT found.*, greatest(found.ledger[2], found.own, 0) AS reverted
    FROM (
        SELECT t.*,
            -- As in the statement that decides a request: the number of credits of the account that
            -- name the usage in any spelling, and their sum, limited to the largest bigint, without
            -- negative credits. IS NOT DISTINCT FROM keeps the planner from the index on accounts,
            -- which would read the account's whole history for each usage.
            (
                SELECT ARRAY[
                    count(*),
                    least(coalesce(sum(c.amount) FILTER (WHERE c.amount > 0), 0),
                        9223372036854775807)::bigint
                ]
                FROM {ledger}.billing_transactions c
                WHERE {hash_of_reverted}
                        = hashtextextended(replace(t.id::text, '-', '') COLLATE "C", 0)
                    AND {reverted} = replace(t.id::text, '-', '')
                    AND c.type = 'credit' AND c.metadata ? 'revert_request_using'
                    AND c.account_id IS NOT DISTINCT FROM t.account_id
            ) AS ledger,
            -- Reverts by revertd's own record, also if they were removed from the ledger.
            (
                SELECT o.reverted_before - coalesce(o.reverted_by_others, 0) + o.amount
                FROM revertd.outcomes o
                WHERE o.usage_id = t.id AND o.refusal IS NULL
                ORDER BY o.revert_no DESC LIMIT 1
            ) AS own
        FROM (
            SELECT t.id, t.account_id, t.amount, t.created_at
            FROM {ledger}.billing_transactions t
            WHERE t.account_id = ANY ($1::uuid[]) AND t.type = 'debit' AND t.amount > 0
                AND ($2::timestamptz IS NULL OR t.created_at >= $2)
                AND ($3::timestamptz IS NULL OR t.created_at < $3)
                AND ($4::text IS NULL OR coalesce(t.source, '') = $4)
                AND NOT EXISTS (
                    SELECT FROM unnest($5::text[], $6::text[]) m (key, value)
                    WHERE t.metadata ->> m.key IS DISTINCT FROM m.value
                )
                AND ($8::double precision IS NULL
                    OR t.created_at >= now() - make_interval(secs => $8))
            OFFSET 0
        ) t
        OFFSET 0
    ) found
) u
WHERE u.reverted < u.amount AND ($7::boolean OR (u.ledger[1] = 0 AND u.own IS NULL))
ORDER BY u.created_at, u.id LIMIT $9::bigint
