-- frontier: what Frontier sends for one revert, in its order: account, usage, the account's reverts
-- of this usage since, and both legs at SERIALIZABLE. Run by pgbench, which tries again where a
-- transaction can't be serialized.
\set turn :turn + 1
\set usage :first + :turn * :clients + :client_id
\set account mod(:usage, :accounts)
SELECT * FROM billing_customers WHERE id = uuid_generate_v5(uuid_nil(), 'account' || :account);
SELECT * FROM billing_transactions WHERE id = uuid_generate_v5(uuid_nil(), (:usage)::text);
SELECT r.* FROM billing_transactions r
WHERE r.account_id = uuid_generate_v5(uuid_nil(), 'account' || :account)
    AND r.created_at >= (SELECT u.created_at FROM billing_transactions u
        WHERE u.id = uuid_generate_v5(uuid_nil(), (:usage)::text))
    AND r.metadata ->> 'revert_request_using' = uuid_generate_v5(uuid_nil(), (:usage)::text)::text
ORDER BY r.created_at DESC;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO billing_transactions (id, account_id, description, type, source, amount, user_id,
    metadata, created_at, updated_at)
VALUES (gen_random_uuid(), uuid_nil(), 'Revert: a job', 'debit', 'system.revert.api.usage', 20, '',
    jsonb_build_object('job', 'render', 'revert_request_using', uuid_generate_v5(uuid_nil(),
        (:usage)::text)), now(), now())
RETURNING *;
INSERT INTO billing_transactions (id, account_id, description, type, source, amount, user_id,
    metadata, created_at, updated_at)
VALUES (uuid_generate_v5('967416d0-716e-4308-b58f-2468ac14f20a',
        uuid_generate_v5(uuid_nil(), (:usage)::text)::text || ':0:' || uuid_generate_v5(uuid_nil(),
            'account' || :account)::text),
    uuid_generate_v5(uuid_nil(), 'account' || :account), 'Revert: a job', 'credit',
        'system.revert.api.usage', 20, '',
    jsonb_build_object('job', 'render', 'revert_request_using', uuid_generate_v5(uuid_nil(),
        (:usage)::text)), now(), now())
RETURNING *;
COMMIT;
