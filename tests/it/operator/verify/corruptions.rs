//! Statements that corrupt a sound ledger, each with the findings that `verify` must report.

/// Changes of the ledger, each with all its findings.
pub const CORRUPTIONS: &[(&str, &[&str])] = &[
    (
        "DELETE FROM billing_transactions WHERE id = (SELECT transaction_id FROM revertd.outcomes
         WHERE usage_id = WHOLE AND revert_no = 0)",
        &["CUSTOMER_LEG_MISSING", "LEGS_UNBALANCED"],
    ),
    (
        "DELETE FROM billing_transactions WHERE id = (SELECT platform_transaction_id FROM \
            revertd.outcomes
         WHERE usage_id = WHOLE AND revert_no = 0)",
        &["PLATFORM_LEG_MISSING", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET account_id = gen_random_uuid()
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit'",
        &["LEG_ON_WRONG_ACCOUNT"],
    ),
    (
        "UPDATE billing_transactions SET account_id = NULL
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEG_ON_WRONG_ACCOUNT"],
    ),
    (
        "UPDATE billing_transactions SET type = 'debit'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit'",
        &["LEG_OF_WRONG_TYPE", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET amount = 19
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEG_AMOUNT_DIFFERS", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET metadata = metadata || \
            jsonb_build_object('revert_request_using', PARTS)
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &[
            "LEG_NAMES_WRONG_USAGE",
            "LEGS_DIFFER",
            "LEG_WITHOUT_OUTCOME",
        ],
    ),
    (
        "UPDATE billing_transactions SET description = 'another'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEGS_DIFFER"],
    ),
    (
        "UPDATE billing_transactions SET id = 'eeeeeeee-0000-5000-8000-000000000000'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit';
         UPDATE billing_transactions SET id = 'eeeeeeee-0000-8000-8000-000000000000'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit';
         UPDATE revertd.outcomes SET transaction_id = 'eeeeeeee-0000-5000-8000-000000000000',
         platform_transaction_id = 'eeeeeeee-0000-8000-8000-000000000000'
         WHERE usage_id = WHOLE AND revert_no = 0",
        &["ENTRY_ID_UNEXPECTED"],
    ),
    // One after another: source, description, time, reason.
    (
        "UPDATE billing_transactions SET source = NULL WHERE metadata ->> 'revert_request_using' = \
            WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE billing_transactions SET description = 'Reverted' WHERE metadata ->> \
            'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN", "USAGE_CHANGED"],
    ),
    (
        "UPDATE billing_transactions SET created_at = created_at - interval '1 year'
         WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE billing_transactions SET metadata = metadata || '{\"revert_reason\": \"none\"}'
         WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE revertd.outcomes SET client = 'another' WHERE usage_id = WHOLE AND revert_no = 0",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET message_id = 'another' WHERE refusal = 'REQUEST_ID_REUSED'",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET content = gen_random_uuid() WHERE refusal = \
            'REQUEST_ID_REUSED'",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET org_id = gen_random_uuid() WHERE usage_id = WHOLE AND \
            revert_no = 0",
        &["ORG_CHANGED"],
    ),
    (
        "DELETE FROM billing_transactions WHERE id = PARTS",
        &["USAGE_MISSING"],
    ),
    (
        "UPDATE billing_transactions SET type = 'credit' WHERE id = PARTS",
        &["USAGE_MISMATCH"],
    ),
    (
        "UPDATE billing_transactions SET amount = 19 WHERE id = PARTS",
        &["USAGE_CHANGED"],
    ),
    (
        "UPDATE billing_transactions SET source = 'edited', user_id = NULL WHERE id = WHOLE",
        &["USAGE_CHANGED"],
    ),
    (
        "ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
         UPDATE revertd.outcomes SET reverted_before = 4 WHERE usage_id = PARTS AND revert_no = 1",
        &["GUARD_BROKEN", "CHAIN_BROKEN"],
    ),
    // Under its name, and keeping nothing out.
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_once CHECK (refusal IS NOT NULL OR \
         cumulative
             OR revert_no >= 0 OR reverted_before >= 0)",
        &["GUARD_BROKEN"],
    ),
    (
        "DROP TRIGGER outcomes_chain ON revertd.outcomes",
        &["GUARD_BROKEN"],
    ),
    (
        "DELETE FROM revertd.outcomes WHERE usage_id = PARTS AND revert_no = 0",
        &["CHAIN_BROKEN", "LEG_WITHOUT_OUTCOME"],
    ),
    (
        "DELETE FROM revertd.outcomes WHERE usage_id = WHOLE AND revert_no = 0",
        &["LEG_WITHOUT_OUTCOME"],
    ),
    (
        "DROP INDEX revertd.outcomes_revert_no;
         CREATE TEMP TABLE twice AS SELECT * FROM revertd.outcomes WHERE usage_id = WHOLE AND \
         revert_no = 0;
         UPDATE twice SET id = gen_random_uuid();
         INSERT INTO revertd.outcomes SELECT * FROM twice",
        &[
            "GUARD_BROKEN",
            "REVERT_NUMBER_TWICE",
            "OUTCOME_ID_UNEXPECTED",
        ],
    ),
    (
        "DROP INDEX billing_transactions_revertd_idx",
        &["INDEX_MISSING"],
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = \
            'billing_transactions_revertd_idx'::regclass",
        &["INDEX_WITHOUT_EFFECT"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;
         UPDATE revertd.outcomes SET amount = 0 WHERE refusal = 'NOT_A_USAGE'",
        &["GUARD_BROKEN", "AMOUNT_NOT_POSITIVE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_amount_positive CHECK (amount > 0) \
         NOT VALID",
        &["GUARD_BROKEN"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_refusal_known;
         UPDATE revertd.outcomes SET refusal = 'WHIM', refusal_code = NULL, refusal_message = NULL \
         WHERE refusal = 'NOT_A_USAGE'",
        &["GUARD_BROKEN", "REFUSAL_UNKNOWN"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_legs_belong_together;
         UPDATE revertd.outcomes SET transaction_id = gen_random_uuid() WHERE refusal = \
         'NOT_A_USAGE'",
        &["GUARD_BROKEN", "REFUSAL_WITH_LEG"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_legs_belong_together;
         UPDATE revertd.outcomes SET revert_no = NULL WHERE usage_id = SHARED AND refusal IS NULL",
        &["GUARD_BROKEN", "OUTCOME_INCOMPLETE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_within_usage;
         UPDATE revertd.outcomes SET usage_amount = 14 WHERE usage_id = SHARED AND refusal IS NULL",
        &["GUARD_BROKEN", "OUTCOME_EXCEEDS_USAGE", "USAGE_CHANGED"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_others_within_before;
         UPDATE revertd.outcomes SET reverted_by_others = 6 WHERE usage_id = SHARED AND refusal IS \
         NULL",
        &["GUARD_BROKEN", "OTHERS_EXCEED_BEFORE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
         UPDATE revertd.outcomes SET cumulative = false WHERE usage_id = PARTS AND revert_no = 1",
        &["GUARD_BROKEN", "ONCE_BROKEN"],
    ),
    // A second revert of all of it, with everything that belongs to it.
    (
        "ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
         CREATE TEMP TABLE more AS SELECT * FROM revertd.outcomes WHERE usage_id = WHOLE AND \
         revert_no = 0;
         UPDATE more SET id = gen_random_uuid(), revert_no = 1, cumulative = true,
             transaction_id = revertd.entry_id(usage_id, 1, account_id),
             platform_transaction_id = revertd.platform_leg(revertd.entry_id(usage_id, 1, \
             account_id));
         CREATE TEMP TABLE legs AS SELECT * FROM billing_transactions
             WHERE metadata ->> 'revert_request_using' = WHOLE;
         UPDATE legs SET id = CASE type WHEN 'credit' THEN (SELECT transaction_id FROM more)
             ELSE (SELECT platform_transaction_id FROM more) END;
         INSERT INTO revertd.outcomes SELECT * FROM more;
         INSERT INTO billing_transactions SELECT * FROM legs",
        &[
            "GUARD_BROKEN",
            "CHAIN_BROKEN",
            "REVERTS_EXCEED_USAGE",
            "OUTCOME_ID_UNEXPECTED",
        ],
    ),
    // A revert by another writer, with its own form of the id and an unrelated platform leg.
    (
        "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
         SELECT gen_random_uuid(), leg.account, leg.type, 1,
             jsonb_build_object('revert_request_using', '{' || upper(WHOLE) || '}')
         FROM billing_transactions t CROSS JOIN LATERAL
             (VALUES (t.account_id, 'credit'), (uuid_nil(), 'debit')) leg (account, type)
         WHERE t.id = WHOLE",
        &["EXCESS_WITH_OTHERS"],
    ),
    (
        "DELETE FROM billing_transactions WHERE metadata ->> 'revert_request_using' = SHARED
         AND type = 'debit' AND amount = 5",
        &["LEGS_UNBALANCED"],
    ),
    // Not ours to judge: nonsense that names no usage, and an account that Frontier deleted.
    // Usages whose reporter chose an id and metadata that look like a leg's.
    (
        "INSERT INTO billing_transactions (id, account_id, type, source, amount, metadata)
         SELECT id::uuid, account, type, 'api', 7, jsonb_build_object('revert_request_using', PARTS)
         FROM (SELECT account_id AS customer FROM billing_transactions WHERE id = PARTS) t CROSS \
         JOIN LATERAL
             (VALUES ('eeeeeeee-0000-8000-8000-000000000001', customer, 'debit'),
                 ('eeeeeeee-0000-8000-8000-000000000002', uuid_nil(), 'credit')) leg (id, account, \
                 type)",
        &[],
    ),
    (
        "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
         VALUES (gen_random_uuid(), gen_random_uuid(), 'credit', 1, '{\"revert_request_using\": \
         [1]}')",
        &[],
    ),
    (
        "UPDATE billing_customers SET deleted_at = now();
         DELETE FROM billing_transactions WHERE account_id IN (SELECT id FROM billing_customers)",
        &[],
    ),
];
