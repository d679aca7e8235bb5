-- revertd's own tables. Frontier's tables are never named here: they may live in any schema,
-- and deleting one of Frontier's accounts must stay possible.

-- UUID version 5, from the extension that Frontier's own tables use, wherever it was installed.
-- Every id that revertd writes into the ledger comes from here.
DO $do$
DECLARE
    home text;
BEGIN
    SELECT n.nspname INTO home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'uuid-ossp';
    IF home IS NULL THEN
        RAISE EXCEPTION 'the extension "uuid-ossp" is not installed in this database'
            USING ERRCODE = 'undefined_object';
    END IF;
    EXECUTE format(
        'CREATE FUNCTION revertd.uuid_v5(namespace uuid, name text) RETURNS uuid '
        'LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS %L',
        format('SELECT %I.uuid_generate_v5(namespace, name)', home));
END
$do$;

-- The id of the n-th entry that reverts a usage, by whichever writer: Frontier's.
CREATE FUNCTION revertd.entry_id(usage_id uuid, n bigint, account_id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    $fn$ SELECT revertd.uuid_v5('967416d0-716e-4308-b58f-2468ac14f20a',
        usage_id::text || ':' || n::text || ':' || account_id::text) $fn$;

-- The id of an entry's other leg, on the platform's account: that of the customer's leg (version 5) with version 8 in
-- its place. Both can be found from each other by sight, and stand side by side in the index of the entries.
CREATE FUNCTION revertd.platform_leg(customer_leg uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    $fn$ SELECT overlay(customer_leg::text PLACING '8' FROM 15 FOR 1)::uuid $fn$;

-- What became of each admitted request: one row, written once, in the transaction that writes the
-- entry. The row alone determines the event.
CREATE TABLE revertd.outcomes (
    -- Identity of the request (client and message id; without one, client, usage and content). The
    -- outcome REQUEST_ID_REUSED stands under an id that includes the content.
    id uuid NOT NULL,
    -- Digest of the six request fields as sent.
    content uuid NOT NULL,
    usage_id uuid NOT NULL,
    org_id uuid NOT NULL,
    account_id uuid NOT NULL,
    amount bigint NOT NULL,
    decided_at timestamptz NOT NULL,
    -- The numbers and ids of an applied revert; NULL for a refusal. What had been given back before,
    -- by whomever, and how much of that by others (NULL: nothing).
    usage_amount bigint,
    reverted_before bigint,
    reverted_by_others bigint,
    transaction_id uuid,
    platform_transaction_id uuid,
    -- n-th revert of this usage by revertd, from 0.
    revert_no integer,
    -- Whether the policy in force was `cumulative`.
    cumulative boolean NOT NULL,
    -- NULL: applied. Else the reason of the contract's table.
    refusal text,
    -- The metadata of the event's ErrorInfo.
    refusal_metadata jsonb,
    -- '' where the broker authenticated nobody.
    client text NOT NULL,
    message_id text,
    reason text,
    CONSTRAINT outcomes_pkey PRIMARY KEY (id),
    CONSTRAINT outcomes_amount_positive CHECK (amount > 0),
    CONSTRAINT outcomes_refusal_known CHECK (refusal IN (
        'REQUEST_ID_REUSED', 'USAGE_NOT_FOUND', 'REVERT_OF_REVERT', 'NOT_A_USAGE',
        'REVERT_WINDOW_CLOSED', 'ALREADY_REVERTED', 'AMOUNT_EXCEEDS_USAGE')),
    -- Both legs, or none.
    CONSTRAINT outcomes_legs_belong_together CHECK (CASE WHEN refusal IS NULL
        THEN transaction_id IS NOT NULL
            AND platform_transaction_id IS NOT NULL
            AND platform_transaction_id <> transaction_id
            AND revert_no IS NOT NULL AND revert_no >= 0
        ELSE num_nonnulls(transaction_id, platform_transaction_id, revert_no, usage_amount,
            reverted_before, reverted_by_others) = 0 END),
    -- Never more than the usage, counting what others had reverted before.
    CONSTRAINT outcomes_within_usage CHECK (refusal IS NOT NULL
        OR coalesce(reverted_before >= 0 AND amount <= usage_amount - reverted_before, false)),
    CONSTRAINT outcomes_others_within_before CHECK (
        reverted_by_others > 0 AND reverted_by_others <= reverted_before),
    -- Once: under that policy a revert is the first and, by outcomes_revert_no, the only first.
    CONSTRAINT outcomes_once CHECK (refusal IS NOT NULL OR cumulative
        OR coalesce(revert_no = 0 AND reverted_before = 0, false))
);

-- Two writers that decide on one usage at the same time compute the same number: one of them waits
-- here, then loses, and decides again.
CREATE UNIQUE INDEX outcomes_revert_no ON revertd.outcomes (usage_id, revert_no)
    WHERE refusal IS NULL;

-- The n-th revert begins where the one before it ended, but for what others gave back meanwhile, so that
-- all of them together stay within the usage and none counts what was never given. A trigger, since a foreign key would need two more indexes; it fires for n > 0 only.
CREATE FUNCTION revertd.check_chain() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT EXISTS (
        SELECT FROM revertd.outcomes o
        WHERE o.usage_id = NEW.usage_id AND o.refusal IS NULL
            AND o.revert_no = NEW.revert_no - 1
            AND o.usage_amount = NEW.usage_amount
            AND o.reverted_before + o.amount <= NEW.reverted_before
            AND o.reverted_before - coalesce(o.reverted_by_others, 0) + o.amount
                = NEW.reverted_before - coalesce(NEW.reverted_by_others, 0)
    ) THEN
        RAISE EXCEPTION 'revert % of usage % does not continue the one before it',
            NEW.revert_no, NEW.usage_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'outcomes_chain',
                SCHEMA = 'revertd', TABLE = 'outcomes';
    END IF;
    RETURN NULL;
END
$fn$;

CREATE CONSTRAINT TRIGGER outcomes_chain AFTER INSERT OR UPDATE ON revertd.outcomes
    FOR EACH ROW WHEN (NEW.revert_no > 0) EXECUTE FUNCTION revertd.check_chain();

-- What a usage's requests take of it, in their order: each takes its amount if that still fits (under
-- the policy `once`: and nobody took before), else nothing.
CREATE FUNCTION revertd.take(taken bigint, amount bigint, available bigint, once boolean)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT CASE WHEN amount <= available - taken AND NOT (once AND taken > 0)
        THEN taken + amount ELSE taken END';

CREATE AGGREGATE revertd.taken(amount bigint, available bigint, once boolean) (
    SFUNC = revertd.take, STYPE = bigint, INITCOND = '0', PARALLEL = SAFE
);

-- Fails the statement that calls it, to be run again with a later snapshot.
CREATE FUNCTION revertd.give_way() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $fn$
BEGIN
    RAISE EXCEPTION 'a concurrent writer decided on a usage of this batch'
        USING ERRCODE = 'serialization_failure';
END
$fn$;
