-- apply: decides a batch of revert requests and writes what it decides; one statement, one commit.
--
-- {ledger} is the schema of Frontier's tables, {on_conflict} what becomes of an outcome that is there: with $15
-- ON CONFLICT DO NOTHING, else nothing, so that the statement fails. {reverted} is the usage that an entry's metadata
-- names, however it is spelled, and {hash_of_reverted} its hash, as in the index (index.sql). Arrays hold one element a request, ordered by usage id
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
--   $13 several      boolean[]  whether the batch has other requests on the usage
--   $14 counts       boolean[]  whether it counts the usage's reverts for those of the batch that name its account alike
--   $15 careful      boolean    whether every request is looked up among the outcomes; see `plain` below
--   $16 cumulative   boolean    the policy
--   $17 max_age      double precision  seconds after which a usage can't be reverted; NULL: never
--   $18 platform     uuid       the platform's own account
--
-- Returns a row for each request that is decided, with is_final = false where the usage may yet come. One without a row met a concurrent writer, or comes
-- after a success on its usage in this batch: it goes through the statement once more.
WITH request AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::uuid[],
        $7::bigint[], $8::uuid[], $9::uuid[], $10::uuid[], $11::text[], $12::boolean[], $13::boolean[],
        $14::boolean[])
        WITH ORDINALITY AS r (id, reuse_id, content, client, message_id, usage_id, amount,
            billing_id, org_id, project_id, reason, last_attempt, several, counts, ord)
),
-- What is known of each request, by index look-ups alone. LIMIT 1 keeps the planner from turning a
-- look-up into a join whose cost it would have to guess.
known AS (
    SELECT r.*,
        account.id AS account_id, account.org_id AS account_org_id,
        usage.type AS usage_type, usage.amount AS usage_amount, usage.created_at AS usage_time,
        usage.source, usage.description, usage.metadata, usage.user_id,
        ledger.n AS ledger_n, ledger.total AS ledger_total,
        NOT ($15 OR r.several) AND r.amount <= usage.amount AND usage.type = 'debit' AND ledger.n IS NULL
            AND ($17::double precision IS NULL OR usage.created_at >= now() - make_interval(secs => $17))
            AND (NOT $16 OR r.message_id IS NOT NULL) AS plain
    FROM request r
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
            AND c.state = 'active' AND c.deleted_at IS NULL AND c.id <> $18
        ORDER BY c.created_at, c.id LIMIT 1
    ) standard ON true
    LEFT JOIN LATERAL (
        SELECT found.id, org.id AS org_id FROM (SELECT coalesce(named.id, standard.id) AS id) found
        WHERE org.id IS NOT NULL AND found.id <> $18
    ) account ON true
    LEFT JOIN LATERAL (
        SELECT t.type, t.amount, t.created_at, t.source, t.description, t.metadata, t.user_id
        FROM {ledger}.billing_transactions t
        WHERE t.id = r.usage_id AND t.account_id = account.id LIMIT 1
    ) usage ON true
    -- Reverts in the ledger, by whichever writer and under whatever id: added up once for a usage, however many
    -- requests of the batch ask for it. The index holds a hash; what it finds is compared as it is spelled. IS NOT
    -- DISTINCT FROM keeps the account's own index out of it, whose entries are the account's whole history.
    LEFT JOIN LATERAL (
        SELECT count(*) AS n, sum(t.amount)::bigint AS total
        FROM {ledger}.billing_transactions t
        WHERE {hash_of_reverted} = hashtextextended(replace(r.usage_id::text, '-', '') COLLATE "C", 0)
            AND {reverted} = replace(r.usage_id::text, '-', '')
            AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
            AND t.account_id IS NOT DISTINCT FROM account.id
            AND usage.type = 'debit' AND r.counts
        HAVING count(*) > 0
    ) ledger ON true
),
-- A `plain` request can only succeed: its usage is there, and nobody gave anything of it back. If it is in the
-- outcomes all the same (its id was used for another usage, its revert was removed from the ledger, or a concurrent
-- writer decides it just now), a unique key fails the statement, which runs again with $15. All others are looked up.
counted AS MATERIALIZED (
    SELECT k.*,
        CASE WHEN first.content = k.content THEN first.id ELSE reuse.id END AS stored_id,
        coalesce(own.n, 0) AS own_n, coalesce(own.total, 0) AS own_total, own.first AS own_first,
        earliest.entry AS earliest,
        -- The contract's table, in its order, as far as it needs no counting.
        CASE
            WHEN k.plain THEN NULL
            WHEN first.content = k.content OR reuse.id IS NOT NULL THEN 'STORED'
            WHEN $16 AND k.message_id IS NULL THEN 'INVALID_FIELD'
            -- Row 4, ORG_NOT_GRANTED, stands here: before anything of the ledger shows.
            WHEN k.account_id IS NULL THEN 'BILLING_ACCOUNT_NOT_FOUND'
            WHEN first.content <> k.content THEN 'REQUEST_ID_REUSED'
            WHEN k.usage_amount IS NULL THEN 'USAGE_NOT_FOUND'
            WHEN k.usage_type = 'credit' AND k.metadata ? 'revert_request_using' THEN 'REVERT_OF_REVERT'
            WHEN k.usage_type IS DISTINCT FROM 'debit' THEN 'NOT_A_USAGE'
            WHEN k.usage_time < now() - make_interval(secs => $17) THEN 'REVERT_WINDOW_CLOSED'
        END AS refusal
    FROM known k
    LEFT JOIN LATERAL (
        SELECT o.id, o.content FROM revertd.outcomes o
        WHERE o.id = CASE WHEN k.plain IS NOT TRUE THEN k.id END LIMIT 1
    ) first ON true
    LEFT JOIN LATERAL (
        SELECT o.id FROM revertd.outcomes o
        WHERE o.id = CASE WHEN first.content <> k.content THEN k.reuse_id END LIMIT 1
    ) reuse ON true
    -- Reverts by revertd's own record, which holds even if somebody removed them from the ledger.
    LEFT JOIN LATERAL (
        SELECT o.revert_no + 1 AS n,
            o.reverted_before - coalesce(o.reverted_by_others, 0) + o.amount AS total,
            jsonb_build_object('transaction_id', o.transaction_id::text, 'amount', o.amount::text,
                'time', to_char(o.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                AS first
        FROM revertd.outcomes o
        WHERE o.usage_id = CASE WHEN k.plain IS NOT TRUE THEN k.usage_id END AND o.refusal IS NULL
        ORDER BY o.revert_no DESC LIMIT 1
    ) own ON true
    LEFT JOIN LATERAL (
        SELECT jsonb_build_object('transaction_id', t.id::text, 'amount', t.amount::text,
            'time', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS entry
        FROM {ledger}.billing_transactions t
        WHERE {hash_of_reverted} = hashtextextended(replace(k.usage_id::text, '-', '') COLLATE "C", 0)
            AND {reverted} = replace(k.usage_id::text, '-', '')
            AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
            AND t.account_id IS NOT DISTINCT FROM k.account_id
            AND NOT $16 AND k.ledger_n > 0
        ORDER BY t.created_at, t.id LIMIT 1
    ) earliest ON true
),
-- What the requests of the batch on one usage take of it, in their order: each its amount if that still fits. Most are
-- alone on their usage, and go by the shorter way.
shared AS (
    SELECT c.*, c.ledger_n AS all_n, c.ledger_total AS all_total, c.earliest AS all_earliest,
        CASE WHEN c.refusal IS NULL AND ($16 OR greatest(c.ledger_n, c.own_n) = 0)
            AND c.amount <= c.usage_amount - greatest(c.ledger_total, c.own_total)
            THEN c.amount ELSE 0 END AS taken,
        0::bigint AS taken_before, 0::bigint AS nth
    FROM counted c WHERE NOT c.several
    UNION ALL
    SELECT u.*, count(*) FILTER (WHERE u.taken > u.taken_before) OVER in_order - 1
    FROM (
        SELECT t.*, coalesce(lag(t.taken) OVER (PARTITION BY t.usage_id ORDER BY t.ord), 0) AS taken_before
        FROM (
            SELECT a.*, revertd.taken(a.amount, a.usage_amount - greatest(a.all_total, a.own_total), NOT $16)
                FILTER (WHERE a.refusal IS NULL AND ($16 OR greatest(a.all_n, a.own_n) = 0))
                OVER (PARTITION BY a.usage_id ORDER BY a.ord ROWS UNBOUNDED PRECEDING) AS taken
            FROM (
                SELECT c.*, max(c.ledger_n) OVER same AS all_n, max(c.ledger_total) OVER same AS all_total,
                    first_value(c.earliest) OVER (same ORDER BY c.ord) AS all_earliest
                FROM counted c WHERE c.several
                WINDOW same AS (PARTITION BY c.usage_id, c.account_id)
            ) a
        ) t
    ) u
    WINDOW in_order AS (PARTITION BY u.usage_id ORDER BY u.ord ROWS UNBOUNDED PRECEDING)
),
decided AS MATERIALIZED (
    SELECT d.*,
        CASE d.verdict WHEN 'APPLIED' THEN NULL ELSE d.verdict END AS final_refusal,
        CASE d.verdict
            WHEN 'ALREADY_REVERTED' THEN coalesce(d.all_earliest, d.own_first)
            WHEN 'AMOUNT_EXCEEDS_USAGE' THEN jsonb_build_object(
                'usage_amount', d.usage_amount::text,
                'remaining', greatest(d.usage_amount - d.reverted_before - d.taken, 0)::text)
        END AS refusal_metadata,
        CASE d.verdict WHEN 'APPLIED' THEN revertd.uuid_v5('967416d0-716e-4308-b58f-2468ac14f20a',
            d.usage_id::text || ':' || (d.n + d.nth) || ':' || d.account_id::text) END AS entry_id,
        d.verdict = 'APPLIED' OR (d.message_id IS NOT NULL
            AND d.verdict NOT IN ('STORED', 'INVALID_FIELD', 'BILLING_ACCOUNT_NOT_FOUND', 'AGAIN')
            AND (d.verdict <> 'USAGE_NOT_FOUND' OR d.last_attempt)) AS store
    FROM (
        SELECT s.*, greatest(s.all_n, s.own_n) AS n, greatest(s.all_total, s.own_total) AS reverted_before,
            CASE
                WHEN s.refusal IS NOT NULL THEN s.refusal
                WHEN NOT $16 AND greatest(s.all_n, s.own_n) > 0 THEN 'ALREADY_REVERTED'
                WHEN s.taken > s.taken_before THEN 'APPLIED'
                -- Another of this batch was first: with its entry there to name, decide again.
                WHEN NOT $16 AND s.taken > 0 THEN 'AGAIN'
                ELSE 'AMOUNT_EXCEEDS_USAGE'
            END AS verdict
        FROM shared s
        -- Keeps the planner from working the verdict out anew wherever it is named.
        OFFSET 0
    ) d
),
claimed AS (
    INSERT INTO revertd.outcomes (id, content, usage_id, org_id, account_id, amount, decided_at,
        usage_amount, reverted_before, reverted_by_others, transaction_id, platform_transaction_id,
        revert_no, cumulative, refusal, refusal_metadata, client, message_id, reason)
    SELECT CASE d.verdict WHEN 'REQUEST_ID_REUSED' THEN d.reuse_id ELSE d.id END,
        d.content, d.usage_id, d.account_org_id, d.account_id, d.amount, now(),
        entry.usage_amount, entry.reverted_before, entry.reverted_by_others, d.entry_id,
        revertd.platform_leg(d.entry_id), entry.revert_no,
        $16, d.final_refusal, d.refusal_metadata, d.client, d.message_id, d.reason
    FROM decided d
    LEFT JOIN LATERAL (
        SELECT d.usage_amount, d.reverted_before + d.taken_before AS reverted_before,
            nullif(greatest(d.all_total - d.own_total, 0), 0) AS reverted_by_others,
            (d.own_n + d.nth)::integer AS revert_no
        WHERE d.verdict = 'APPLIED'
    ) entry ON true
    WHERE d.store
    ORDER BY d.ord
    {on_conflict}
    RETURNING id, content, refusal, refusal_metadata, org_id, account_id, decided_at, usage_amount,
        reverted_before + amount AS reverted_total, transaction_id, platform_transaction_id
),
-- Legs are of claims alone. An id that another writer took meanwhile fails the statement, claims and all; what is
-- then visible is decided anew.
legs AS (
    INSERT INTO {ledger}.billing_transactions (id, account_id, type, source, amount, description,
        metadata, user_id, created_at, updated_at)
    SELECT leg.id, leg.account_id, leg.type, e.source, e.amount, e.description, e.metadata, e.user_id, now(), now()
    FROM (
        SELECT d.entry_id, d.account_id, d.amount, d.user_id,
            'system.revert.' || coalesce(d.source, '') AS source,
            'Revert: ' || coalesce(d.description, '') AS description,
            CASE jsonb_typeof(d.metadata) WHEN 'object' THEN d.metadata - 'revert_reason' ELSE '{}' END
                || CASE WHEN d.reason IS NULL
                    THEN jsonb_build_object('revert_request_using', d.usage_id::text)
                    ELSE jsonb_build_object('revert_request_using', d.usage_id::text, 'revert_reason', d.reason)
                END AS metadata
        FROM decided d
        -- A subplan of its own, hashed; as a join it could be planned as a loop in a loop.
        WHERE (d.id IN (SELECT c.id FROM claimed c WHERE c.refusal IS NULL)) IS TRUE AND d.verdict = 'APPLIED'
        ORDER BY d.ord
        OFFSET 0
    ) e
    CROSS JOIN LATERAL (VALUES
        (e.entry_id, e.account_id, 'credit'),
        (revertd.platform_leg(e.entry_id), $18, 'debit')
    ) leg (id, account_id, type)
),
-- An outcome that is found may be committed here and not yet on a standby, as after a crash in between. Only a
-- commit that writes waits for the standbys: with this record, an answer from what is stored is as safe as a new one.
witness AS MATERIALIZED (
    SELECT pg_logical_emit_message(true, 'revertd', '') FROM decided d WHERE d.verdict = 'STORED' LIMIT 1
)
SELECT c.*, true AS is_final FROM claimed c
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
