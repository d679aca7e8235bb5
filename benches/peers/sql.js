'use strict';
// The statements. Named, so that each connection prepares them once.

const TABLE = `
CREATE TABLE IF NOT EXISTS peer_outcomes (
    id uuid PRIMARY KEY,
    usage_id uuid NOT NULL UNIQUE,
    message_id text,
    account_id uuid NOT NULL,
    org_id uuid NOT NULL,
    amount bigint NOT NULL,
    usage_amount bigint NOT NULL,
    transaction_id uuid NOT NULL,
    platform_transaction_id uuid NOT NULL,
    decided_at timestamptz NOT NULL
)`;

const NIL = "'00000000-0000-0000-0000-000000000000'::uuid";

// The ids that an entry gets: of the request, and of the customer's leg as Frontier computes it. The
// platform's leg has one derived from that, so that nothing a redelivery writes can have a new id.
const REQUEST_ID = `uuid_generate_v5(${NIL}, r.key)`;
const CUSTOMER_LEG_ID = `uuid_generate_v5('967416d0-716e-4308-b58f-2468ac14f20a',
    r.usage_id::text || ':0:' || r.account_id::text)`;

const ONE = `SELECT $1::text AS key, $2::text AS message_id, $3::uuid AS usage_id,
    $4::uuid AS account_id, $5::bigint AS amount, 1 AS ord`;
const MANY = `SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[], $5::bigint[])
    WITH ORDINALITY AS r (key, message_id, usage_id, account_id, amount, ord)`;

/**
 * One statement that writes what can be applied and returns it. A request without a row in the answer was
 * decided before, loses to a concurrent one, or can't be applied: `answer` tells.
 */
const apply = (requests) => `
WITH r AS (${requests}),
found AS MATERIALIZED (
    SELECT r.*, ${REQUEST_ID} AS id, leg.id AS transaction_id,
        uuid_generate_v5(leg.id, 'platform') AS platform_transaction_id, c.org_id,
        u.amount AS usage_amount, 'system.revert.' || coalesce(u.source, '') AS source,
        'Revert: ' || coalesce(u.description, '') AS description, u.user_id,
        u.metadata || jsonb_build_object('revert_request_using', r.usage_id::text) AS metadata
    FROM r
    JOIN billing_transactions u ON u.id = r.usage_id
    JOIN billing_customers c ON c.id = r.account_id
    CROSS JOIN LATERAL (SELECT ${CUSTOMER_LEG_ID} AS id OFFSET 0) leg
    WHERE u.account_id = r.account_id AND u.type = 'debit' AND r.amount <= u.amount
        AND c.deleted_at IS NULL
),
-- In the order of the usages, so that two batches with the same of them don't wait for each other.
claimed AS (
    INSERT INTO peer_outcomes (id, usage_id, message_id, account_id, org_id, amount, usage_amount,
        transaction_id, platform_transaction_id, decided_at)
    SELECT f.id, f.usage_id, f.message_id, f.account_id, f.org_id, f.amount, f.usage_amount,
        f.transaction_id, f.platform_transaction_id, now()
    FROM found f ORDER BY f.usage_id
    ON CONFLICT DO NOTHING
    RETURNING id
),
-- IS TRUE keeps it a hash of the claims: the planner, which expects one row, would compare each with each.
entry AS MATERIALIZED (SELECT * FROM found f WHERE (f.id IN (SELECT c.id FROM claimed c)) IS TRUE),
legs AS (
    INSERT INTO billing_transactions (id, account_id, type, source, amount, description, metadata, user_id)
    SELECT e.transaction_id, e.account_id, 'credit', e.source, e.amount, e.description, e.metadata, e.user_id
    FROM entry e
    UNION ALL
    SELECT e.platform_transaction_id, ${NIL}, 'debit', e.source, e.amount, e.description, e.metadata, e.user_id
    FROM entry e
)
SELECT e.ord::int, e.id, e.org_id, e.usage_amount, e.transaction_id, e.platform_transaction_id, now()::text
FROM entry e`;

/** What became of a request that was not applied now. Runs after `apply`, so it sees what that waited for. */
const ANSWER = `
SELECT ${REQUEST_ID} AS id,
    -- With the content: a request id that came before must not have its event's id as well.
    uuid_generate_v5(${REQUEST_ID}, concat_ws(':', 'refused', r.usage_id, r.account_id, r.amount)) AS refusal_id,
    coalesce(own.org_id, c.org_id) AS org_id, coalesce(own.amount, r.amount) AS amount,
    own.usage_amount, own.transaction_id, own.platform_transaction_id,
    coalesce(own.decided_at, now())::text AS decided_at,
    CASE
        WHEN own.usage_id = r.usage_id AND own.amount = r.amount AND own.account_id = r.account_id THEN NULL
        WHEN own.id IS NOT NULL THEN 'REQUEST_ID_REUSED'
        WHEN c.id IS NULL OR u.id IS NULL THEN 'USAGE_NOT_FOUND'
        WHEN other.id IS NOT NULL THEN 'ALREADY_REVERTED'
        WHEN r.amount > u.amount THEN 'AMOUNT_EXCEEDS_USAGE'
        ELSE 'AGAIN'
    END AS reason
FROM (${ONE}) r
LEFT JOIN peer_outcomes own ON own.id = ${REQUEST_ID}
LEFT JOIN peer_outcomes other ON other.usage_id = r.usage_id
LEFT JOIN billing_transactions u ON u.id = r.usage_id AND u.account_id = r.account_id AND u.type = 'debit'
LEFT JOIN billing_customers c ON c.id = r.account_id AND c.deleted_at IS NULL`;

// A transaction in steps: it reads the facts, then writes the outcomes.
const LOOKUP = `
SELECT ${REQUEST_ID} AS id, c.org_id, u.amount AS usage_amount, ${CUSTOMER_LEG_ID} AS transaction_id,
    uuid_generate_v5(${CUSTOMER_LEG_ID}, 'platform') AS platform_transaction_id, now()::text AS decided_at,
    'system.revert.' || coalesce(u.source, '') AS source,
    'Revert: ' || coalesce(u.description, '') AS description, u.user_id,
    (u.metadata || jsonb_build_object('revert_request_using', r.usage_id::text))::text AS metadata
FROM (${ONE}) r
JOIN billing_transactions u ON u.id = r.usage_id AND u.account_id = r.account_id AND u.type = 'debit'
JOIN billing_customers c ON c.id = r.account_id AND c.deleted_at IS NULL
WHERE r.amount <= u.amount AND NOT EXISTS (SELECT FROM peer_outcomes o WHERE o.id = ${REQUEST_ID})`;

const OUTCOME = `
INSERT INTO peer_outcomes (id, usage_id, message_id, account_id, org_id, amount, usage_amount,
    transaction_id, platform_transaction_id, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())`;

const LEGS = `
INSERT INTO billing_transactions (id, account_id, type, source, amount, description, metadata, user_id)
VALUES ($1, $2, 'credit', $4, $5, $6, $7, $8), ($3, ${NIL}, 'debit', $4, $5, $6, $7, $8)`;

module.exports = { TABLE, APPLY_ONE: apply(ONE), APPLY_MANY: apply(MANY), ANSWER, LOOKUP, OUTCOME, LEGS };
