-- facts: the account and the usage that each request names, and whether the client has a grant.
--
-- Index look-ups only, each on one table by its key: a join could be planned as a scan. LIMIT 1
-- keeps the planner from turning a look-up into a join; OFFSET 0 keeps it from computing a subquery
-- again at each reference.
--
-- {ledger} is the schema of Frontier's tables.
-- {reverted} is the usage that an entry's metadata names, in any spelling.
-- {hash_of_reverted} is the hash of that usage.
-- {indexed} is the condition of the index (index.sql).
--   $1  client       text[]    '' if the broker authenticated no client
--   $2  usage_id     uuid[]
--   $3  billing_id   uuid[]    NULL if not given, like the next four
--   $4  org_id       uuid[]
--   $5  org_name     text[]
--   $6  project_id   uuid[]
--   $7  project_name text[]
--   $8  max_age      double precision  seconds after which a usage cannot be reverted; NULL: never
--   $9  platform     uuid      the platform's own account
--   $10 grants       boolean   whether a client needs a grant; otherwise every client has all
SELECT r.ord, now(), granted.is_granted, account.id, account.org_id,
    usage.amount, usage.type = 'debit' AS is_usage,
    usage.type = 'credit' AND usage.metadata ? 'revert_request_using' AS is_revert,
    usage.created_at < now() - make_interval(secs => $8::double precision) AS is_closed,
    -- Whether a row of the account names the usage, of any writer, id and type. The index holds a
    -- hash, so the named usage is compared too. IS NOT DISTINCT FROM keeps the planner from the
    -- index on accounts, which would read the account's whole history. Rows of other accounts that
    -- name the usage are skipped.
    CASE WHEN usage.type = 'debit' THEN (
        SELECT true FROM {ledger}.billing_transactions t
        WHERE {hash_of_reverted}
                = hashtextextended(replace(r.usage_id::text, '-', '') COLLATE "C", 0)
            AND {reverted} = replace(r.usage_id::text, '-', '')
            AND {indexed}
            AND t.account_id IS NOT DISTINCT FROM account.id
        LIMIT 1
    ) END AS is_named,
    -- Its time, if it is later than now. An event cannot contain infinity, or a time beyond the
    -- years of four digits.
    usage.created_at > now() AS is_later,
    CASE WHEN usage.created_at > now() AND usage.created_at < '9999-12-30 00:00+00'
        THEN usage.created_at END AS created_later
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::text[])
    WITH ORDINALITY
    AS r (client, usage_id, billing_id, org_id, org_name, project_id, project_name, ord)
LEFT JOIN LATERAL (
    SELECT c.id, c.org_id FROM {ledger}.billing_customers c
    WHERE c.id = r.billing_id AND c.deleted_at IS NULL LIMIT 1
) account_named ON true
-- The org that the request names, and the org of the project that it names; each by id or name.
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN r.org_name IS NULL THEN r.org_id ELSE (
            SELECT o.id FROM {ledger}.organizations o WHERE o.name = r.org_name LIMIT 1
        ) END AS org_id,
        CASE WHEN r.project_id IS NOT NULL THEN (
            SELECT p.org_id FROM {ledger}.projects p
            WHERE p.id = r.project_id AND p.deleted_at IS NULL LIMIT 1
        ) WHEN r.project_name IS NOT NULL THEN (
            SELECT p.org_id FROM {ledger}.projects p
            WHERE p.name = r.project_name AND p.deleted_at IS NULL LIMIT 1
        ) END AS org_of_project
    OFFSET 0
) stated
LEFT JOIN LATERAL (
    SELECT o.id FROM {ledger}.organizations o
    WHERE o.id = coalesce(account_named.org_id, stated.org_id, stated.org_of_project)
        AND o.deleted_at IS NULL
        AND (num_nonnulls(r.org_id, r.org_name) = 0 OR stated.org_id = o.id)
        AND (num_nonnulls(r.project_id, r.project_name) = 0 OR stated.org_of_project = o.id)
        AND (r.billing_id IS NULL OR account_named.org_id = o.id)
    LIMIT 1
) org ON true
LEFT JOIN LATERAL (
    SELECT found.id, org.id AS org_id
    FROM (
        -- Without a billing_id: the newest active account of the org, as Frontier debits it.
        SELECT CASE WHEN r.billing_id IS NOT NULL THEN account_named.id ELSE (
            SELECT c.id FROM {ledger}.billing_customers c
            WHERE c.org_id = org.id AND c.state = 'active' AND c.deleted_at IS NULL
                AND c.id <> $9
            ORDER BY c.created_at DESC NULLS LAST, c.id LIMIT 1
        ) END AS id
        OFFSET 0
    ) found
    WHERE org.id IS NOT NULL AND found.id <> $9
) account ON true
LEFT JOIN LATERAL (
    SELECT t.type, t.amount, t.created_at, t.metadata
    FROM {ledger}.billing_transactions t
    WHERE t.id = r.usage_id AND t.account_id = account.id LIMIT 1
) usage ON true
-- A grant for the org of the account or, without an account, for the org that the request names.
-- One look-up for the batch finds grants for every org.
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN NOT $10 THEN true
        WHEN r.client IN (
            SELECT g.client FROM revertd.grants g WHERE g.org_id IS NULL AND g.client = ANY ($1)
        ) THEN true
        ELSE (
            SELECT true FROM revertd.grants g
            WHERE g.client = r.client AND g.org_id = coalesce(org.id, stated.org_id) LIMIT 1
        )
    END AS is_granted
) granted
