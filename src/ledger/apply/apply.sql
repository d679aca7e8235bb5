-- apply: decides a batch of revert requests and writes the decisions; one statement, one commit.
--
-- {ledger} is the schema of Frontier's tables. {on_conflict} is ON CONFLICT DO NOTHING with $21;
-- otherwise it is empty, so that the statement fails if an outcome exists already.
-- {reverted} is the usage that an entry's metadata names, in any spelling.
-- {hash_of_reverted} is the hash of that usage.
-- {indexed} is the condition of the index (index.sql).
-- Arrays hold one element per request, ordered by usage id and then by delivery, so that two
-- batches take their locks in the same order.
--   $1  id           uuid[]     the request's identity
--   $2  reuse_id     uuid[]     identity of the refusal REQUEST_ID_REUSED of this id and content
--   $3  content      uuid[]     digest of the six fields
--   $4  client       text[]     '' if the broker authenticated no client
--   $5  message_id   text[]     NULL if the request has none
--   $6  usage_id     uuid[]
--   $7  amount       bigint[]   > 0
--   $8  billing_id   uuid[]     NULL if not given, like the next three
--   $9  org_id       uuid[]
--   $10 project_id   uuid[]
--   $11 reason       text[]
--   $12 last_attempt boolean[]  whether USAGE_NOT_FOUND is final for the request
--   $13 several      boolean[]  whether the batch has other requests on the usage
--   $14 counts       boolean[]  whether this request looks up the usage's reverts for all requests
--                               of the batch that name the account in the same way
--   $15 entry_id     uuid[]     id of the first entry on the usage, if its account is billing_id
--   $16 platform_leg uuid[]     id of that entry's other leg
--   $17 org_name     text[]     NULL if the request has no org name; the next likewise
--   $18 project_name text[]
--   $19 contested    boolean[]  whether the batch has other contents under the request's id
--   $20 delivered    integer[]  position in the order of delivery
--   $21 careful      boolean    whether every request is looked up among the outcomes; see `plain`
--   $22 cumulative   boolean    the policy
--   $23 max_age      double precision  seconds after which a usage cannot be reverted; NULL: never
--   $24 platform     uuid       the platform's own account
--   $25 grants       boolean    whether a client needs a grant; otherwise every client has all
--   $26 reasons      text[]     reasons of the refusals that are stored
--   $27 codes        integer[]  the code of each reason
--   $28 messages     text[]     the message of each reason, which is stored with the refusal
--
-- Returns a row for each decided request: is_final = false if the usage may still arrive, and
-- is_stored = true if the request was decided before. A request without a row met a concurrent
-- writer, or follows a success on its usage in this batch: it goes through the statement once more.
WITH request AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::uuid[],
        $7::bigint[], $8::uuid[], $9::uuid[], $10::uuid[], $11::text[], $12::boolean[],
        $13::boolean[],
        $14::boolean[], $15::uuid[], $16::uuid[], $17::text[], $18::text[], $19::boolean[],
        $20::integer[])
        WITH ORDINALITY AS r (id, reuse_id, content, client, message_id, usage_id, amount,
            billing_id, org_id, project_id, reason, last_attempt, several, counts, entry_id,
            platform_leg, org_name, project_name, contested, delivered, ord)
),
-- The facts of each request, by index look-ups only, each on one table by its key: a join could be
-- planned as a scan. LIMIT 1 keeps the planner from turning a look-up into a join; a CASE around it
-- keeps the planner from running a look-up that is not needed.
known AS (
    SELECT r.*,
        account.id AS account_id, account.org_id AS account_org_id,
        usage.type AS usage_type, usage.amount AS usage_amount, usage.created_at AS usage_time,
        usage.source, usage.description, usage.metadata, usage.user_id,
        -- Whether a row of the account names the usage, for every writer, id and type. The index
        -- holds a hash, so the named usage is compared too. IS NOT DISTINCT FROM keeps the planner
        -- from the index on accounts, which would read the account's whole history. It is asked
        -- once per usage, for all requests of the batch on it. Rows of other accounts that name the
        -- usage are skipped.
        CASE WHEN usage.type = 'debit' AND r.counts THEN (
            SELECT true FROM {ledger}.billing_transactions t
            WHERE {hash_of_reverted}
                    = hashtextextended(replace(r.usage_id::text, '-', '') COLLATE "C", 0)
                AND {reverted} = replace(r.usage_id::text, '-', '')
                AND {indexed}
                AND t.account_id IS NOT DISTINCT FROM account.id
            LIMIT 1
        ) END AS named,
        -- Row 4: whether the client has a grant for the org of the account or, without an account,
        -- for the org that the request names. One look-up per batch finds grants for every org.
        CASE
            WHEN NOT $25 THEN true
            WHEN r.client IN (
                SELECT g.client FROM revertd.grants g
                WHERE g.org_id IS NULL AND g.client = ANY ($4)
            ) THEN true
            ELSE (
                SELECT true FROM revertd.grants g
                WHERE g.client = r.client AND g.org_id = coalesce(org.id, stated.org_id) LIMIT 1
            )
        END AS granted
    FROM request r
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
                    AND c.id <> $24
                ORDER BY c.created_at DESC NULLS LAST, c.id LIMIT 1
            ) END AS id
            OFFSET 0
        ) found
        WHERE org.id IS NOT NULL AND found.id <> $24
    ) account ON true
    LEFT JOIN LATERAL (
        SELECT t.type, t.amount, t.created_at, t.source, t.description, t.metadata, t.user_id
        FROM {ledger}.billing_transactions t
        WHERE t.id = r.usage_id AND t.account_id = account.id LIMIT 1
    ) usage ON true
    OFFSET 0
),
-- A `plain` request can only succeed: its usage exists, and no row names it. Its outcome may exist
-- nevertheless (its id was used for another usage, its revert was removed from the ledger, or a
-- concurrent writer decides it at this moment), or the id of its entry may be in use. Then a unique
-- key fails the statement, and it runs again with $21. All other requests are looked up.
looked_up AS (
    SELECT k.*,
        CASE WHEN NOT k.plain THEN (
            SELECT o.content FROM revertd.outcomes o WHERE o.id = k.id LIMIT 1
        ) END AS first_content,
        -- Reverts by revertd's own record, which is valid even if they were removed from the
        -- ledger.
        CASE WHEN NOT k.plain THEN (
            SELECT o FROM revertd.outcomes o
            WHERE o.usage_id = k.usage_id AND o.refusal IS NULL
            ORDER BY o.revert_no DESC LIMIT 1
        ) END AS own,
        -- The number of reverts in the ledger (credits, in any spelling); their sum, limited to the
        -- largest bigint, without negative credits, which give nothing back; and the number of rows
        -- that Frontier counts for the id of its next entry: of any type, not older than the usage,
        -- in exactly this spelling.
        CASE WHEN k.named THEN (
            SELECT ARRAY[
                count(*) FILTER (WHERE t.type = 'credit'),
                least(coalesce(sum(t.amount) FILTER (WHERE t.type = 'credit' AND t.amount > 0), 0),
                    9223372036854775807)::bigint,
                count(*) FILTER (WHERE t.metadata ->> 'revert_request_using' = k.usage_id::text
                    AND t.created_at >= k.usage_time)
            ]
            FROM {ledger}.billing_transactions t
            WHERE {hash_of_reverted}
                    = hashtextextended(replace(k.usage_id::text, '-', '') COLLATE "C", 0)
                AND {reverted} = replace(k.usage_id::text, '-', '')
                AND {indexed}
                AND t.account_id IS NOT DISTINCT FROM k.account_id
        ) END AS ledger,
        -- Without a time that an event cannot contain: infinity, or beyond the years of four
        -- digits.
        CASE WHEN NOT $22 AND k.named THEN (
            SELECT jsonb_strip_nulls(jsonb_build_object(
                'transaction_id', t.id::text, 'amount', t.amount::text,
                'time', CASE WHEN t.created_at >= '0001-01-01 00:00+00'
                        AND t.created_at < '10000-01-01 00:00+00'
                    THEN to_char(t.created_at AT TIME ZONE 'UTC',
                        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END))
            FROM {ledger}.billing_transactions t
            WHERE {hash_of_reverted}
                    = hashtextextended(replace(k.usage_id::text, '-', '') COLLATE "C", 0)
                AND {reverted} = replace(k.usage_id::text, '-', '')
                AND t.type = 'credit' AND t.metadata ? 'revert_request_using'
                AND t.account_id IS NOT DISTINCT FROM k.account_id
            ORDER BY t.created_at, t.id LIMIT 1
        ) END AS earliest
    FROM (
        SELECT k.*, coalesce(NOT ($21 OR k.several OR k.contested) AND k.granted
            AND k.usage_refusal IS NULL AND k.named IS NULL
            AND k.amount <= k.usage_amount AND (NOT $22 OR k.message_id IS NOT NULL),
                false) AS plain
        FROM (
            -- The rows of the table of refusals that depend only on the usage, in their order. A
            -- request that one of them refuses is not `plain`.
            SELECT k.*, CASE
                WHEN k.usage_amount IS NULL THEN 'USAGE_NOT_FOUND'
                WHEN k.usage_type = 'credit' AND k.metadata ? 'revert_request_using'
                    THEN 'REVERT_OF_REVERT'
                WHEN k.usage_type IS DISTINCT FROM 'debit' THEN 'NOT_A_USAGE'
                WHEN k.usage_time < now() - make_interval(secs => $23::double precision)
                    THEN 'REVERT_WINDOW_CLOSED'
            END AS usage_refusal
            FROM known k
        ) k
        OFFSET 0
    ) k
    OFFSET 0
),
counted AS MATERIALIZED (
    SELECT k.*,
        coalesce((k.own).revert_no + 1, 0) AS own_n,
        coalesce((k.own).reverted_before - coalesce((k.own).reverted_by_others, 0)
            + (k.own).amount, 0) AS own_total,
        k.ledger[1] AS ledger_n, k.ledger[2] AS ledger_total,
        coalesce(k.ledger[3], 0) AS entry_no,
        -- A usage with a negative amount leaves nothing to give back.
        greatest(k.usage_amount, 0) AS to_give_back,
        -- The table of refusals, in its order, as far as it needs no counting.
        CASE
            WHEN k.plain THEN NULL
            WHEN k.reuse_found OR k.first_content = k.content THEN 'STORED'
            WHEN $25 AND k.client = '' THEN 'CLIENT_UNKNOWN'
            WHEN $22 AND k.message_id IS NULL THEN 'INVALID_FIELD'
            -- Decided before the answer can reveal whether an org, project, account or usage
            -- exists.
            WHEN k.granted IS NOT TRUE THEN 'ORG_NOT_GRANTED'
            WHEN k.account_id IS NULL THEN 'BILLING_ACCOUNT_NOT_FOUND'
            WHEN k.first_content <> k.content THEN 'REQUEST_ID_REUSED'
            ELSE k.usage_refusal
        END AS refusal
    FROM (
        SELECT l.*, CASE WHEN l.first_content <> l.content THEN (
            SELECT true FROM revertd.outcomes o WHERE o.id = l.reuse_id LIMIT 1
        ) END AS reuse_found
        FROM looked_up l
    ) k
),
-- Of several contents under one id, the request is the first in the order of delivery that is
-- stored under it. The contents after it wait for the next round, which finds it stored and refuses
-- them. Contents that are refused before that (rows 2 to 5) are not stored, and are answered now.
-- Most ids have one content, and take the shorter path.
in_turn AS (
    SELECT c.*, NULL::boolean AS after_row_6, c.refusal AS now_refused
    FROM counted c WHERE NOT c.contested
    UNION ALL
    SELECT c.*,
        CASE WHEN c.after_row_6 AND coalesce(bool_or(c.after_row_6
                AND (c.refusal IS DISTINCT FROM 'USAGE_NOT_FOUND' OR c.last_attempt))
            OVER (PARTITION BY c.id ORDER BY c.delivered
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false)
            THEN 'AGAIN' ELSE c.refusal END
    FROM (
        SELECT c.*, coalesce(c.refusal = ANY ($26::text[]) AND c.refusal <> 'REQUEST_ID_REUSED',
            true)
            AS after_row_6
        FROM counted c WHERE c.contested
    ) c
),
-- The amounts that the requests of the batch on one usage take, in their order: each its amount, if
-- that still fits. Most requests are alone on their usage, and take the shorter path.
shared AS (
    SELECT c.*, c.ledger_n AS all_n, c.ledger_total AS all_total, c.entry_no AS all_entry_no,
        c.earliest AS all_earliest,
        CASE WHEN c.now_refused IS NULL AND ($22 OR greatest(c.ledger_n, c.own_n) = 0)
            AND c.amount <= c.to_give_back - greatest(c.ledger_total, c.own_total)
            THEN c.amount ELSE 0 END AS taken,
        0::bigint AS taken_before, 0::bigint AS nth
    FROM in_turn c WHERE NOT c.several
    UNION ALL
    SELECT u.*, count(*) FILTER (WHERE u.taken > u.taken_before) OVER in_order - 1
    FROM (
        SELECT t.*,
            coalesce(lag(t.taken) OVER (PARTITION BY t.usage_id ORDER BY t.ord), 0) AS taken_before
        FROM (
            SELECT a.*,
                revertd.taken(a.amount, a.to_give_back - greatest(a.all_total, a.own_total),
                    NOT $22)
                FILTER (WHERE a.now_refused IS NULL AND ($22 OR greatest(a.all_n, a.own_n) = 0))
                OVER (PARTITION BY a.usage_id ORDER BY a.ord ROWS UNBOUNDED PRECEDING) AS taken
            FROM (
                SELECT c.*, max(c.ledger_n) OVER same AS all_n,
                    max(c.ledger_total) OVER same AS all_total,
                    max(c.entry_no) OVER same AS all_entry_no,
                    first_value(c.earliest) OVER (same ORDER BY c.ord) AS all_earliest
                FROM in_turn c WHERE c.several
                WINDOW same AS (PARTITION BY c.usage_id, c.account_id)
            ) a
        ) t
    ) u
    WINDOW in_order AS (PARTITION BY u.usage_id ORDER BY u.ord ROWS UNBOUNDED PRECEDING)
),
decided AS MATERIALIZED (
    SELECT d.id, d.reuse_id, d.content, d.client, d.message_id, d.usage_id, d.amount, d.reason,
        d.last_attempt, d.ord,
        d.account_id, d.account_org_id, d.usage_amount, d.usage_time, d.source, d.description,
        d.metadata, d.user_id,
        d.first_content, d.own_n, d.own_total, d.all_total, d.reverted_before, d.taken,
        d.taken_before, d.nth, d.verdict,
        d.new_id AS entry_id,
        CASE WHEN d.new_id = d.entry_id THEN d.platform_leg
            ELSE revertd.platform_leg(d.new_id) END AS platform_leg,
        CASE d.verdict WHEN 'APPLIED' THEN NULL ELSE d.verdict END AS final_refusal,
        CASE d.verdict
            WHEN 'ALREADY_REVERTED' THEN coalesce(d.all_earliest, jsonb_build_object(
                'transaction_id', (d.own).transaction_id::text, 'amount', (d.own).amount::text,
                'time', to_char((d.own).decided_at AT TIME ZONE 'UTC',
                    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
            WHEN 'AMOUNT_EXCEEDS_USAGE' THEN jsonb_build_object(
                'usage_amount', d.usage_amount::text,
                'remaining', greatest(d.to_give_back - d.reverted_before - d.taken, 0)::text)
        END AS refusal_metadata,
        d.verdict = 'APPLIED' OR (d.message_id IS NOT NULL
            AND d.verdict = ANY ($26::text[])
            AND (d.verdict <> 'USAGE_NOT_FOUND' OR d.last_attempt)) AS store
    FROM (
        SELECT v.*,
            -- The id of the entry: with the number that Frontier would give it, or the next number
            -- whose ids no entry and no outcome of the usage has. Most entries are the first of
            -- their usage, with an id that was computed beforehand. generate_series in the select
            -- list generates only as many rows as are needed.
            CASE WHEN v.verdict <> 'APPLIED' THEN NULL
            WHEN v.account_id = v.billing_id
                AND (v.plain OR v.all_entry_no + v.nth + v.own_n = 0 AND (
                SELECT true FROM {ledger}.billing_transactions t
                WHERE t.id IN (v.entry_id, v.platform_leg) LIMIT 1
            ) IS NULL) THEN v.entry_id
            WHEN v.plain THEN revertd.entry_id(v.usage_id, 0, v.account_id)
            ELSE (
                SELECT numbered.id FROM (
                    SELECT revertd.entry_id(v.usage_id, n, v.account_id) AS id
                    FROM (
                        SELECT generate_series(v.all_entry_no, v.all_entry_no + v.nth + 1000) AS n
                    ) s
                    OFFSET 0
                ) numbered
                WHERE (
                    SELECT true FROM {ledger}.billing_transactions t
                    WHERE t.id IN (numbered.id, revertd.platform_leg(numbered.id)) LIMIT 1
                ) IS NULL AND (
                    SELECT true FROM revertd.outcomes o
                    WHERE o.usage_id = v.usage_id AND o.refusal IS NULL
                        AND o.transaction_id = numbered.id LIMIT 1
                ) IS NULL
                OFFSET v.nth LIMIT 1
            ) END AS new_id
        FROM (
        SELECT s.*, greatest(s.all_total, s.own_total) AS reverted_before,
            CASE
                WHEN s.now_refused IS NOT NULL THEN s.now_refused
                WHEN NOT $22 AND greatest(s.all_n, s.own_n) > 0 THEN 'ALREADY_REVERTED'
                WHEN s.taken > s.taken_before THEN 'APPLIED'
                -- Another request of this batch was first. The next round finds its entry, and can
                -- name it.
                WHEN NOT $22 AND s.taken > 0 THEN 'AGAIN'
                ELSE 'AMOUNT_EXCEEDS_USAGE'
            END AS verdict
        FROM shared s
        -- Keeps the planner from computing the verdict again at each reference.
        OFFSET 0
        ) v
        OFFSET 0
    ) d
),
claimed AS (
    INSERT INTO revertd.outcomes (id, content, usage_id, org_id, account_id, amount, decided_at,
        usage_amount, reverted_before, reverted_by_others, transaction_id, platform_transaction_id,
        revert_no, cumulative, refusal, refusal_metadata, refusal_code, refusal_message,
        client, message_id, reason)
    SELECT CASE d.verdict WHEN 'REQUEST_ID_REUSED' THEN d.reuse_id ELSE d.id END,
        d.content, d.usage_id, d.account_org_id, d.account_id, d.amount, now(),
        entry.usage_amount, entry.reverted_before, entry.reverted_by_others, d.entry_id,
        d.platform_leg, entry.revert_no,
        $22, d.final_refusal, d.refusal_metadata,
        ($27::integer[])[array_position($26::text[], d.final_refusal)],
        ($28::text[])[array_position($26::text[], d.final_refusal)],
        d.client, d.message_id, d.reason
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
-- Only claims get legs. If another writer used an id meanwhile, the statement fails with all its
-- claims, and the requests are decided again with the rows that are then visible.
legs AS (
    INSERT INTO {ledger}.billing_transactions (id, account_id, type, source, amount, description,
        metadata, user_id, created_at, updated_at)
    -- An entry is never dated before its usage, because Frontier would not count it then.
    SELECT leg.id, leg.account_id, leg.type, e.source, e.amount, e.description, e.metadata,
        e.user_id,
        greatest(now(), e.usage_time), now()
    FROM (
        SELECT d.entry_id, d.platform_leg, d.account_id, d.amount, d.user_id, d.usage_time,
            'system.revert.' || coalesce(d.source, '') AS source,
            'Revert: ' || coalesce(d.description, '') AS description,
            CASE jsonb_typeof(d.metadata) WHEN 'object' THEN d.metadata - 'revert_reason'
                ELSE '{}' END
                || CASE WHEN d.reason IS NULL
                    THEN jsonb_build_object('revert_request_using', d.usage_id::text)
                    ELSE jsonb_build_object('revert_request_using', d.usage_id::text,
                        'revert_reason', d.reason)
                END AS metadata
        FROM decided d
        -- A hashed subplan; as a join it could be planned as a nested loop.
        WHERE (d.entry_id IN (
            SELECT c.transaction_id FROM claimed c WHERE c.refusal IS NULL
        )) IS TRUE
            AND d.verdict = 'APPLIED'
        ORDER BY d.ord
        OFFSET 0
    ) e
    CROSS JOIN LATERAL (VALUES
        (e.entry_id, e.account_id, 'credit'),
        (e.platform_leg, $24, 'debit')
    ) leg (id, account_id, type)
),
-- An outcome or entry that was found may be committed here and not yet on a standby, for example
-- after a crash. Only a commit that writes waits for the standbys. This record makes the statement
-- write, so that an answer based on found rows is as durable as those rows.
witness AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (
        SELECT FROM decided d
        WHERE d.verdict = 'STORED'
            OR NOT d.store AND d.verdict = ANY ($26::text[]) AND d.verdict <> 'USAGE_NOT_FOUND'
    ) THEN pg_logical_emit_message(true, 'revertd', '') END
)
SELECT c.*, true AS is_final, false AS is_stored,
    NULL::integer AS refusal_code, NULL::text AS refusal_message
FROM claimed c
UNION ALL
SELECT o.id, o.content, o.refusal, o.refusal_metadata, o.org_id, o.account_id, o.decided_at,
    o.usage_amount, o.reverted_before + o.amount, o.transaction_id, o.platform_transaction_id,
    true, true,
    o.refusal_code, o.refusal_message
FROM decided d
CROSS JOIN LATERAL (
    SELECT * FROM revertd.outcomes o
    WHERE o.id = CASE WHEN d.first_content = d.content THEN d.id ELSE d.reuse_id END LIMIT 1
) o
CROSS JOIN witness
WHERE d.verdict = 'STORED'
UNION ALL
-- A refusal before row 5 contains no fact that was looked up.
SELECT d.id, d.content, d.verdict, d.refusal_metadata, told.org_id, told.account_id, now(),
    NULL, NULL, NULL, NULL, d.verdict <> 'USAGE_NOT_FOUND' OR d.last_attempt, false, NULL, NULL
FROM decided d
CROSS JOIN witness
LEFT JOIN LATERAL (
    SELECT d.account_org_id AS org_id, d.account_id
    WHERE d.verdict = ANY ($26::text[])
) told ON true
WHERE NOT d.store AND d.verdict NOT IN ('STORED', 'AGAIN')
UNION ALL
-- A decision that counts earlier requests of the batch is only valid if those were applied. If one
-- lost its claim to a concurrent writer, the whole statement gives way and decides again. For a
-- success, the chain of reverts alone would not detect this: a writer that took the same amount
-- leaves the chain valid, but the order reversed.
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
WHERE CASE WHEN EXISTS (SELECT FROM decided d
        WHERE d.store AND (d.verdict = 'AMOUNT_EXCEEDS_USAGE' AND d.taken > 0
            OR d.verdict = 'APPLIED' AND d.taken_before > 0))
    AND (SELECT count(*) FROM claimed) < (SELECT count(*) FROM decided d WHERE d.store)
    THEN revertd.give_way() ELSE false END;
