-- apply: decides a batch of revert requests and writes what it decides; one statement, one commit.
--
-- {ledger} is the schema of Frontier's tables. Arrays hold one element a request, ordered by usage id
-- and then by delivery, so that two batches take their locks in one order.
--   $1  id           uuid[]     the request's identity
--   $2  reuse_id     uuid[]     identity of the refusal REQUEST_ID_REUSED of this id and content
--   $3  content      uuid[]     digest of the six fields
--   $4  client       text[]     '' where the broker authenticated nobody
--   $5  message_id   text[]     NULL where the request has none
--   $6  usage_id     uuid[]
--   $7  amount       bigint[]   > 0
--   $8  billing_id   uuid[]     NULL where not given, as the next three
--   $9  org_id       uuid[]
--   $10 project_id   uuid[]
--   $11 reason       text[]
--   $12 last_attempt boolean[]  whether USAGE_NOT_FOUND is final for it
--   $13 cumulative   boolean    the policy
--   $14 max_age      double precision  seconds after which a usage can't be reverted; NULL: never
--   $15 platform     uuid       the platform's own account
--
-- Returns a row for each request that is decided, with is_final = false where the usage may yet come. One without a row met a concurrent writer, or comes
-- after a success on its usage in this batch: it goes through the statement once more.
WITH request AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::uuid[],
        $7::bigint[], $8::uuid[], $9::uuid[], $10::uuid[], $11::text[], $12::boolean[])
        WITH ORDINALITY AS r (id, reuse_id, content, client, message_id, usage_id, amount,
            billing_id, org_id, project_id, reason, last_attempt, ord)
),
-- What is known of each request, by index look-ups alone. LIMIT 1 keeps the planner from turning a
-- look-up into a join whose cost it would have to guess.
known AS (
    SELECT r.*,
        first.id IS NOT NULL AND first.content <> r.content AS id_reused,
        CASE WHEN first.content = r.content THEN first.id ELSE reuse.id END AS stored_id,
        account.id AS account_id, account.org_id AS account_org_id,
        usage.type AS usage_type, usage.amount AS usage_amount, usage.created_at AS usage_time,
        usage.names_usage,
        coalesce(own.n, 0) AS own_n, coalesce(own.total, 0) AS own_total, own.first AS own_first,
        row_number() OVER (PARTITION BY r.usage_id, account.id ORDER BY r.ord) AS turn
    FROM request r
    LEFT JOIN LATERAL (
        SELECT o.id, o.content FROM revertd.outcomes o WHERE o.id = r.id LIMIT 1
    ) first ON true
    LEFT JOIN LATERAL (
        SELECT o.id FROM revertd.outcomes o
        WHERE o.id = CASE WHEN first.content <> r.content THEN r.reuse_id END LIMIT 1
    ) reuse ON true
    -- Each table by itself, each by its key: a join here could be planned as a scan.
    LEFT JOIN LATERAL (
        SELECT c.id, c.org_id FROM {ledger}.billing_customers c
        WHERE c.id = r.billing_id AND c.deleted_at IS NULL LIMIT 1
    ) named ON true
    LEFT JOIN LATERAL (
        SELECT p.org_id FROM {ledger}.projects p
        WHERE p.id = r.project_id AND p.deleted_at IS NULL LIMIT 1
    ) project ON true
    LEFT JOIN LATERAL (
        SELECT o.id FROM {ledger}.organizations o
        WHERE o.id = coalesce(named.org_id, r.org_id, project.org_id) AND o.deleted_at IS NULL
            AND (r.org_id IS NULL OR r.org_id = o.id)
            AND (r.project_id IS NULL OR project.org_id = o.id)
            AND (r.billing_id IS NULL OR named.org_id = o.id)
        LIMIT 1
    ) org ON true
    LEFT JOIN LATERAL (
        SELECT c.id FROM {ledger}.billing_customers c
        WHERE c.org_id = CASE WHEN r.billing_id IS NULL THEN org.id END
            AND c.state = 'active' AND c.deleted_at IS NULL AND c.id <> $15
        ORDER BY c.created_at, c.id LIMIT 1
    ) standard ON true
    LEFT JOIN LATERAL (
        SELECT found.id, org.id AS org_id FROM (SELECT coalesce(named.id, standard.id) AS id) found
        WHERE org.id IS NOT NULL AND found.id <> $15
    ) account ON true
    LEFT JOIN LATERAL (
        SELECT t.type, t.amount, t.created_at, t.metadata ? 'revert_request_using' AS names_usage
        FROM {ledger}.billing_transactions t
        WHERE t.id = r.usage_id AND t.account_id = account.id LIMIT 1
    ) usage ON true
    -- And by revertd's own record, which holds even if somebody removed them from the ledger.
    LEFT JOIN LATERAL (
        SELECT o.revert_no + 1 AS n,
            o.reverted_before - coalesce(o.reverted_by_others, 0) + o.amount AS total,
            jsonb_build_object('transaction_id', o.transaction_id::text, 'amount', o.amount::text,
                'time', to_char(o.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                AS first
        FROM revertd.outcomes o
        WHERE o.usage_id = r.usage_id AND o.refusal IS NULL
        ORDER BY o.revert_no DESC LIMIT 1
    ) own ON true
),
-- Reverts in the ledger, by whichever writer and under whatever id: added up once for a usage, however many
-- requests of the batch ask for it. IS NOT DISTINCT FROM keeps the account's own index out of it, whose entries
-- are the account's whole history.
counted AS (
    SELECT k.*, ledger.n AS ledger_n, ledger.total AS ledger_total, earliest.entry AS earliest
    FROM known k
    LEFT JOIN LATERAL (
        SELECT count(*) AS n, sum(t.amount)::bigint AS total
        FROM {ledger}.billing_transactions t
        WHERE replace(translate(lower(t.metadata ->> 'revert_request_using'), '{}-', ''),
                'urn:uuid:', '') = translate(k.usage_id::text, '-', '')
            AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
            AND t.account_id IS NOT DISTINCT FROM k.account_id
            AND k.usage_type = 'debit' AND k.turn = 1
        HAVING count(*) > 0
    ) ledger ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_build_object('transaction_id', t.id::text, 'amount', t.amount::text,
            'time', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS entry
        FROM {ledger}.billing_transactions t
        WHERE replace(translate(lower(t.metadata ->> 'revert_request_using'), '{}-', ''),
                'urn:uuid:', '') = translate(k.usage_id::text, '-', '')
            AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
            AND t.account_id IS NOT DISTINCT FROM k.account_id
            AND NOT $13 AND ledger.n > 0
        ORDER BY t.created_at, t.id LIMIT 1
    ) earliest ON true
),
prior AS (
    SELECT c.*,
        greatest(max(c.ledger_n) OVER same, c.own_n) AS n,
        greatest(max(c.ledger_total) OVER same, c.own_total) AS reverted_before,
        nullif(greatest(max(c.ledger_total) OVER same - c.own_total, 0), 0) AS reverted_by_others,
        coalesce(first_value(c.earliest) OVER (same ORDER BY c.ord), c.own_first) AS earlier
    FROM counted c
    WINDOW same AS (PARTITION BY c.usage_id, c.account_id)
),
-- The contract's table, in its order.
judged AS (
    SELECT k.*,
        CASE
            WHEN k.stored_id IS NOT NULL THEN 'STORED'
            WHEN $13 AND k.message_id IS NULL THEN 'INVALID_FIELD'
            -- Row 4, ORG_NOT_GRANTED, stands here: before anything of the ledger shows.
            WHEN k.account_id IS NULL THEN 'BILLING_ACCOUNT_NOT_FOUND'
            WHEN k.id_reused THEN 'REQUEST_ID_REUSED'
            WHEN k.usage_amount IS NULL THEN 'USAGE_NOT_FOUND'
            WHEN k.usage_type = 'credit' AND k.names_usage THEN 'REVERT_OF_REVERT'
            WHEN k.usage_type IS DISTINCT FROM 'debit' THEN 'NOT_A_USAGE'
            WHEN k.usage_time < now() - make_interval(secs => $14) THEN 'REVERT_WINDOW_CLOSED'
            WHEN NOT $13 AND k.n > 0 THEN 'ALREADY_REVERTED'
        END AS refusal
    FROM prior k
),
-- Requests of this batch on one usage: each takes, in order, what still fits.
taking AS (
    SELECT j.*,
        revertd.taken(j.amount, j.usage_amount - j.reverted_before, NOT $13)
            FILTER (WHERE j.refusal IS NULL)
            OVER (PARTITION BY j.usage_id ORDER BY j.ord ROWS UNBOUNDED PRECEDING) AS taken
    FROM judged j
),
taken AS (
    SELECT t.*, coalesce(lag(t.taken) OVER (PARTITION BY t.usage_id ORDER BY t.ord), 0)
        AS taken_before
    FROM taking t
),
decided AS MATERIALIZED (
    SELECT d.*,
        CASE d.verdict WHEN 'APPLIED' THEN NULL ELSE d.verdict END AS final_refusal,
        CASE d.verdict
            WHEN 'ALREADY_REVERTED' THEN d.earlier
            WHEN 'AMOUNT_EXCEEDS_USAGE' THEN jsonb_build_object(
                'usage_amount', d.usage_amount::text,
                'remaining', greatest(d.usage_amount - d.reverted_before - d.taken, 0)::text)
        END AS refusal_metadata,
        count(*) FILTER (WHERE d.verdict = 'APPLIED')
            OVER (PARTITION BY d.usage_id ORDER BY d.ord ROWS UNBOUNDED PRECEDING) - 1 AS nth,
        d.verdict = 'APPLIED' OR (d.message_id IS NOT NULL
            AND d.verdict NOT IN ('STORED', 'INVALID_FIELD', 'BILLING_ACCOUNT_NOT_FOUND', 'AGAIN')
            AND (d.verdict <> 'USAGE_NOT_FOUND' OR d.last_attempt)) AS store
    FROM (
        SELECT t.*, CASE
            WHEN t.refusal IS NOT NULL THEN t.refusal
            WHEN t.taken > t.taken_before THEN 'APPLIED'
            -- Another of this batch was first: with its entry there to name, decide again.
            WHEN NOT $13 AND t.taken > 0 THEN 'AGAIN'
            ELSE 'AMOUNT_EXCEEDS_USAGE'
        END AS verdict
        FROM taken t
    ) d
),
claimed AS (
    INSERT INTO revertd.outcomes (id, content, usage_id, org_id, account_id, amount, decided_at,
        usage_amount, reverted_before, reverted_by_others, transaction_id, platform_transaction_id,
        revert_no, cumulative, refusal, refusal_metadata, client, message_id, reason)
    SELECT CASE d.verdict WHEN 'REQUEST_ID_REUSED' THEN d.reuse_id ELSE d.id END,
        d.content, d.usage_id, d.account_org_id, d.account_id, d.amount, now(),
        entry.usage_amount, entry.reverted_before, entry.reverted_by_others, entry.id,
        revertd.uuid_v5(entry.id, 'platform'), entry.revert_no,
        $13, d.final_refusal, d.refusal_metadata, d.client, d.message_id, d.reason
    FROM decided d
    LEFT JOIN LATERAL (
        SELECT d.usage_amount, d.reverted_before + d.taken_before AS reverted_before,
            d.reverted_by_others,
            (d.own_n + d.nth)::integer AS revert_no,
            revertd.uuid_v5('967416d0-716e-4308-b58f-2468ac14f20a',
                d.usage_id::text || ':' || (d.n + d.nth) || ':' || d.account_id::text) AS id
        WHERE d.verdict = 'APPLIED'
    ) entry ON true
    WHERE d.store
    ORDER BY d.usage_id, d.ord
    ON CONFLICT DO NOTHING
    RETURNING *
),
-- Legs come from claims alone. An id that another writer took meanwhile fails the statement, claims and
-- all; what is then visible is decided anew.
customer_leg AS (
    INSERT INTO {ledger}.billing_transactions (id, account_id, type, source, amount, description,
        metadata, user_id, created_at, updated_at)
    SELECT c.transaction_id, c.account_id, 'credit', 'system.revert.' || coalesce(u.source, ''),
        c.amount, 'Revert: ' || coalesce(u.description, ''),
        CASE jsonb_typeof(u.metadata) WHEN 'object' THEN u.metadata - 'revert_reason'
            ELSE '{}' END
            || jsonb_strip_nulls(jsonb_build_object(
                'revert_request_using', c.usage_id::text, 'revert_reason', c.reason)),
        u.user_id, c.decided_at, c.decided_at
    FROM claimed c
    LEFT JOIN LATERAL (
        SELECT t.source, t.description, t.metadata, t.user_id
        FROM {ledger}.billing_transactions t WHERE t.id = c.usage_id LIMIT 1
    ) u ON true
    WHERE c.refusal IS NULL
    RETURNING *
),
platform_leg AS (
    INSERT INTO {ledger}.billing_transactions (id, account_id, type, source, amount, description,
        metadata, user_id, created_at, updated_at)
    SELECT revertd.uuid_v5(l.id, 'platform'), $15, 'debit', l.source, l.amount, l.description,
        l.metadata, l.user_id, l.created_at, l.updated_at
    FROM customer_leg l
),
-- An outcome that is found may be committed here and not yet on a standby, as after a crash in between. Only a
-- commit that writes waits for the standbys: with this record, an answer from what is stored is as safe as a new one.
witness AS MATERIALIZED (
    SELECT pg_logical_emit_message(true, 'revertd', '') FROM decided d WHERE d.verdict = 'STORED' LIMIT 1
)
SELECT c.id, c.content, c.refusal, c.refusal_metadata, c.org_id, c.account_id, c.decided_at,
    c.usage_amount, c.reverted_before + c.amount AS reverted_total, c.transaction_id, c.platform_transaction_id,
    true AS is_final
FROM claimed c
UNION ALL
SELECT o.id, o.content, o.refusal, o.refusal_metadata, o.org_id, o.account_id, o.decided_at,
    o.usage_amount, o.reverted_before + o.amount, o.transaction_id, o.platform_transaction_id, true
FROM decided d
CROSS JOIN LATERAL (SELECT * FROM revertd.outcomes o WHERE o.id = d.stored_id LIMIT 1) o
CROSS JOIN witness
WHERE d.verdict = 'STORED'
UNION ALL
SELECT d.id, d.content, d.verdict, d.refusal_metadata, d.account_org_id, d.account_id, now(),
    NULL, NULL, NULL, NULL, d.verdict <> 'USAGE_NOT_FOUND' OR d.last_attempt
FROM decided d
WHERE NOT d.store AND d.verdict NOT IN ('STORED', 'AGAIN')
UNION ALL
-- What counts on earlier requests of the batch stands only if they took what they were to take: where one
-- lost its claim to a concurrent writer, the whole statement gives way, and decides again. For a success the
-- chain alone would not do: a writer who took the same amount leaves it whole, and the order reversed.
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
WHERE CASE WHEN EXISTS (SELECT FROM decided d
        WHERE d.store AND (d.verdict = 'AMOUNT_EXCEEDS_USAGE' AND d.taken > 0
            OR d.verdict = 'APPLIED' AND d.taken_before > 0))
    AND (SELECT count(*) FROM claimed) < (SELECT count(*) FROM decided d WHERE d.store)
    THEN revertd.give_way() ELSE false END;
