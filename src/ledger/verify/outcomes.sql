-- verify outcomes: invariants of each outcome, and of the entries that it names.
--
-- {ledger} is the schema of Frontier's tables, {outcomes} all outcomes, archived ones included.
--   $1  first     uuid  outcomes from this id
--   $2  last      uuid  to this one
--   $3  platform  uuid  the platform's own account
--
-- Returns a row for each outcome with a violation, with the codes. The last row has no codes: it
-- has the number of outcomes, and of outcomes whose account is deleted. Frontier deletes accounts
-- with their entries, so the entries of those outcomes may be missing. Each look-up is on one table
-- by its key. LIMIT 1 keeps the planner from turning it into a join, which could become a scan for
-- each range.
WITH checked AS MATERIALIZED (
    SELECT o.id, o.usage_id, o.account_id, o.transaction_id, o.platform_transaction_id,
        account.gone,
        array_remove(ARRAY[
            CASE WHEN o.applied AND c.id IS NULL AND NOT account.gone
                THEN 'CUSTOMER_LEG_MISSING' END,
            CASE WHEN o.applied AND p.id IS NULL AND NOT account.gone
                THEN 'PLATFORM_LEG_MISSING' END,
            CASE WHEN c.account_id <> o.account_id OR c.id IS NOT NULL AND c.account_id IS NULL
                OR p.account_id <> $3 OR p.id IS NOT NULL AND p.account_id IS NULL
                THEN 'LEG_ON_WRONG_ACCOUNT' END,
            CASE WHEN c.id IS NOT NULL AND c.type IS DISTINCT FROM 'credit'
                OR p.id IS NOT NULL AND p.type IS DISTINCT FROM 'debit'
                THEN 'LEG_OF_WRONG_TYPE' END,
            CASE WHEN c.amount <> o.amount OR p.amount <> o.amount THEN 'LEG_AMOUNT_DIFFERS' END,
            CASE WHEN c.id IS NOT NULL
                    AND c.metadata ->> 'revert_request_using' IS DISTINCT FROM o.usage_id::text
                OR p.id IS NOT NULL
                    AND p.metadata ->> 'revert_request_using' IS DISTINCT FROM o.usage_id::text
                THEN 'LEG_NAMES_WRONG_USAGE' END,
            CASE WHEN c.id IS NOT NULL AND p.id IS NOT NULL
                AND (c.source, c.description, c.metadata, c.user_id, c.created_at)
                    IS DISTINCT FROM (p.source, p.description, p.metadata, p.user_id, p.created_at)
                THEN 'LEGS_DIFFER' END,
            CASE WHEN c.id IS NOT NULL AND (c.source LIKE 'system.revert.%'
                AND c.description LIKE 'Revert: %'
                -- The entry has the time of the decision, or of its usage if that is later. The
                -- usage may have been deleted since.
                AND c.created_at >= o.decided_at
                AND (u.id IS NULL OR c.created_at IN (o.decided_at, u.created_at))
                AND c.metadata ->> 'revert_reason' IS NOT DISTINCT FROM o.reason) IS NOT TRUE
                THEN 'LEG_NOT_AS_WRITTEN' END,
            CASE WHEN o.applied AND (
                o.platform_transaction_id <> revertd.platform_leg(o.transaction_id)
                OR o.transaction_id <> revertd.entry_id(o.usage_id, o.revert_no, o.account_id)
                    -- Other writers' entries, ids that are already used, and deleted entries make
                    -- its number among all reverts differ from its number among revertd's own.
                    AND NOT EXISTS (
                        SELECT FROM generate_series(0, o.revert_no::bigint + 1000) n
                        WHERE revertd.entry_id(o.usage_id, n, o.account_id) = o.transaction_id))
                THEN 'ENTRY_ID_UNEXPECTED' END,
            CASE WHEN o.applied AND u.id IS NULL AND NOT account.gone THEN 'USAGE_MISSING' END,
            CASE WHEN u.account_id IS DISTINCT FROM o.account_id AND u.id IS NOT NULL
                OR u.type IS DISTINCT FROM 'debit' AND u.id IS NOT NULL
                THEN 'USAGE_MISMATCH' END,
            CASE WHEN u.id IS NOT NULL AND (u.amount <> o.usage_amount
                OR c.source <> 'system.revert.' || coalesce(u.source, '')
                OR c.description <> 'Revert: ' || coalesce(u.description, '')
                OR c.id IS NOT NULL AND c.user_id IS DISTINCT FROM u.user_id)
                THEN 'USAGE_CHANGED' END,
            CASE WHEN account.org_id <> o.org_id THEN 'ORG_CHANGED' END,
            CASE WHEN before.broken THEN 'CHAIN_BROKEN' END,
            CASE WHEN same.number > 1 THEN 'REVERT_NUMBER_TWICE' END,
            -- The constraints of the table, checked again: they may be dropped or not validated.
            CASE WHEN NOT o.amount > 0 THEN 'AMOUNT_NOT_POSITIVE' END,
            CASE WHEN NOT (o.refusal ~ '^[A-Z][A-Z0-9_]{0,62}$'
                AND (o.refusal_code IS NOT NULL OR o.refusal IN (
                    'REQUEST_ID_REUSED', 'USAGE_NOT_FOUND', 'REVERT_OF_REVERT', 'NOT_A_USAGE',
                    'REVERT_WINDOW_CLOSED', 'ALREADY_REVERTED', 'AMOUNT_EXCEEDS_USAGE')))
                OR num_nonnulls(o.refusal_code, o.refusal_message) > 0
                    AND NOT coalesce(o.refusal IS NOT NULL
                    AND o.refusal_code BETWEEN 1 AND 16 AND o.refusal_message <> '', false)
                THEN 'REFUSAL_UNKNOWN' END,
            CASE WHEN NOT o.applied AND num_nonnulls(o.transaction_id, o.platform_transaction_id,
                o.revert_no, o.usage_amount, o.reverted_before, o.reverted_by_others) > 0
                THEN 'REFUSAL_WITH_LEG' END,
            CASE WHEN o.applied AND NOT coalesce(
                o.transaction_id <> o.platform_transaction_id AND o.revert_no >= 0, false)
                THEN 'OUTCOME_INCOMPLETE' END,
            CASE WHEN o.applied AND NOT coalesce(
                o.reverted_before >= 0 AND o.amount <= o.usage_amount - o.reverted_before, false)
                THEN 'OUTCOME_EXCEEDS_USAGE' END,
            CASE WHEN NOT (o.reverted_by_others > 0 AND o.reverted_by_others <= o.reverted_before)
                THEN 'OTHERS_EXCEED_BEFORE' END,
            CASE WHEN o.applied AND NOT o.cumulative
                AND NOT coalesce(o.revert_no = 0 AND o.reverted_before = 0, false)
                THEN 'ONCE_BROKEN' END
        ], NULL) AS codes
    FROM (
        SELECT o.*, o.refusal IS NULL AS applied FROM {outcomes} o WHERE o.id >= $1 AND o.id <= $2
    ) o
    CROSS JOIN LATERAL (
        SELECT f.org_id, o.applied AND f.org_id IS NULL AS gone FROM (
            SELECT CASE WHEN o.applied THEN (
                SELECT c.org_id FROM {ledger}.billing_customers c
                WHERE c.id = o.account_id AND c.deleted_at IS NULL LIMIT 1
            ) END AS org_id
            OFFSET 0
        ) f
    ) account
    LEFT JOIN LATERAL (
        SELECT * FROM {ledger}.billing_transactions t WHERE t.id = o.transaction_id LIMIT 1
    ) c ON true
    LEFT JOIN LATERAL (
        SELECT * FROM {ledger}.billing_transactions t WHERE t.id = o.platform_transaction_id LIMIT 1
    ) p ON true
    LEFT JOIN LATERAL (
        SELECT * FROM {ledger}.billing_transactions t WHERE o.applied AND t.id = o.usage_id LIMIT 1
    ) u ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.applied AND o.revert_no > 0 THEN (
            SELECT true FROM {outcomes} b
            WHERE b.usage_id = o.usage_id AND b.refusal IS NULL AND b.revert_no = o.revert_no - 1
                AND b.usage_amount = o.usage_amount
                AND b.reverted_before - coalesce(b.reverted_by_others, 0) + b.amount
                    = o.reverted_before - coalesce(o.reverted_by_others, 0)
            LIMIT 1
        ) IS NULL END AS broken
        OFFSET 0
    ) before
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.applied THEN (
            SELECT count(*) FROM {outcomes} s
            WHERE s.usage_id = o.usage_id AND s.refusal IS NULL AND s.revert_no = o.revert_no
                -- After partial reverts are archived, later reverts are numbered from 0 again.
                AND s.archived = o.archived
        ) END AS number
        OFFSET 0
    ) same
)
SELECT c.codes, c.id, c.usage_id, c.account_id, c.transaction_id, c.platform_transaction_id,
    NULL::bigint AS outcomes, NULL::bigint AS gone
FROM checked c WHERE c.codes <> '{}'
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, count(*), count(*) FILTER (WHERE c.gone)
FROM checked c
