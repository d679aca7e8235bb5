-- write: stores outcomes, and both legs of each entry; one statement, one commit.
--
-- An outcome or an entry of another writer that has the same id fails the statement as a whole.
-- Then the batch is decided again.
-- {ledger} is the schema of Frontier's tables. Arrays hold one element per outcome, ordered by
-- usage id, so that two batches take their locks in the same order.
--   $1  id           uuid[]
--   $2  content      uuid[]    digest of the six fields
--   $3  usage_id     uuid[]
--   $4  org_id       uuid[]
--   $5  account_id   uuid[]
--   $6  amount       bigint[]
--   $7  usage_amount bigint[]  NULL for a refusal, like the next five
--   $8  reverted_before    bigint[]
--   $9  reverted_by_others bigint[]  NULL also if it is 0
--   $10 transaction_id     uuid[]
--   $11 platform_transaction_id uuid[]
--   $12 revert_no    integer[]
--   $13 refusal      text[]    NULL for a success, like the next three
--   $14 refusal_metadata text[]  as JSON
--   $15 refusal_code integer[]
--   $16 refusal_message text[]
--   $17 client       text[]
--   $18 message_id   text[]
--   $19 reason       text[]
--   $20 decided_at   timestamptz
--   $21 cumulative   boolean   the policy
--   $22 platform     uuid      the platform's own account
--   $23 reverts      bigint    the number of successes
WITH outcome AS (
    INSERT INTO revertd.outcomes (id, content, usage_id, org_id, account_id, amount, usage_amount,
        reverted_before, reverted_by_others, transaction_id, platform_transaction_id, revert_no,
        refusal, refusal_metadata, refusal_code, refusal_message, client, message_id, reason,
        decided_at, cumulative)
    SELECT r.id, r.content, r.usage_id, r.org_id, r.account_id, r.amount, r.usage_amount,
        r.reverted_before, r.reverted_by_others, r.transaction_id, r.platform_transaction_id,
        r.revert_no, r.refusal, r.refusal_metadata::jsonb, r.refusal_code, r.refusal_message,
        r.client, r.message_id, r.reason, $20, $21
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[], $11::uuid[], $12::integer[],
        $13::text[], $14::text[], $15::integer[], $16::text[], $17::text[], $18::text[],
        $19::text[])
        AS r (id, content, usage_id, org_id, account_id, amount, usage_amount, reverted_before,
            reverted_by_others, transaction_id, platform_transaction_id, revert_no, refusal,
            refusal_metadata, refusal_code, refusal_message, client, message_id, reason)
    RETURNING usage_id, account_id, amount, reason, transaction_id, platform_transaction_id
),
leg AS (
    INSERT INTO {ledger}.billing_transactions (id, account_id, type, source, amount, description,
        metadata, user_id, created_at, updated_at)
    SELECT leg.id, leg.account_id, leg.type, entry.source, entry.amount, entry.description,
        entry.metadata, entry.user_id, entry.created_at, $20
    FROM (
        SELECT o.transaction_id, o.platform_transaction_id, o.account_id, o.amount, usage.user_id,
            'system.revert.' || coalesce(usage.source, '') AS source,
            'Revert: ' || coalesce(usage.description, '') AS description,
            CASE jsonb_typeof(usage.metadata) WHEN 'object' THEN usage.metadata - 'revert_reason'
                ELSE '{}' END
                || CASE WHEN o.reason IS NULL
                    THEN jsonb_build_object('revert_request_using', o.usage_id::text)
                    ELSE jsonb_build_object('revert_request_using', o.usage_id::text,
                        'revert_reason', o.reason)
                END AS metadata,
            -- An entry is never dated before its usage, because Frontier would not count it then.
            greatest($20, usage.created_at) AS created_at
        FROM outcome o
        CROSS JOIN LATERAL (
            SELECT t.source, t.description, t.metadata, t.user_id, t.created_at
            FROM {ledger}.billing_transactions t
            WHERE t.id = o.usage_id AND t.account_id = o.account_id LIMIT 1
        ) usage
        WHERE o.transaction_id IS NOT NULL
        OFFSET 0
    ) entry
    CROSS JOIN LATERAL (VALUES
        (entry.transaction_id, entry.account_id, 'credit'),
        (entry.platform_transaction_id, $22::uuid, 'debit')
    ) leg (id, account_id, type)
    RETURNING 1
)
-- A usage that was deleted after it was read leaves its outcome without legs.
SELECT CASE WHEN count(*) <> 2 * $23::bigint THEN revertd.give_way() END FROM leg
