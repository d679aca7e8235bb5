-- Moves old outcomes to an archive table. docs/operations/retention.md explains when this is safe,
-- and its effects. Run it as the owner of the tables (the role that
-- migrates); it may be stopped and run again.
--
--   psql -X -v ON_ERROR_STOP=1 -v older_than="'400 days'" -v ledger=public -f
--   config/archive-outcomes.sql "$OWNER_URL"
--
--   older_than  longer than the time within which clients send requests again
--   ledger      the schema of Frontier's tables, ledger.schema
--
-- It moves all successes on a usage at once, if the latest is older and each still has its entry in
-- the ledger: the ledger itself refuses the usage from then on. If partial reverts add up (policy
-- `cumulative`), the usage must be reverted fully. It keeps every refusal, and every success whose
-- ledger entry was deleted.
SET search_path TO :"ledger", pg_temp;

-- Adds the columns that migrations added to the outcomes after the archive was created.
CREATE TABLE IF NOT EXISTS revertd.outcomes_archive
    (LIKE revertd.outcomes INCLUDING STORAGE INCLUDING COMPRESSION);
DO $$
DECLARE
    addition text;
BEGIN
    FOR addition IN
        SELECT format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_attribute a
        WHERE a.attrelid = 'revertd.outcomes'::regclass AND a.attnum > 0 AND NOT a.attisdropped
            AND NOT EXISTS (SELECT FROM pg_attribute b
                WHERE b.attrelid = 'revertd.outcomes_archive'::regclass
                AND b.attname = a.attname AND NOT b.attisdropped)
        ORDER BY a.attnum
    LOOP
        EXECUTE 'ALTER TABLE revertd.outcomes_archive ADD COLUMN ' || addition;
    END LOOP;
END
$$;
CREATE INDEX IF NOT EXISTS outcomes_archive_id ON revertd.outcomes_archive (id);
CREATE INDEX IF NOT EXISTS outcomes_archive_usage_id ON revertd.outcomes_archive (usage_id);

-- A role that may read the outcomes may also read the archive: `revertd verify` and `revertd
-- status` read both.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = 'revertd.outcomes'::regclass AND a.privilege_type = 'SELECT'
            AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT ON revertd.outcomes_archive TO %s', reader);
    END LOOP;
END
$$;

CREATE OR REPLACE PROCEDURE pg_temp.archive_outcomes(older_than interval, usages integer)
LANGUAGE plpgsql AS $$
DECLARE
    -- Usages in the order of the index outcomes_revert_no, so that each is read once.
    done uuid := '00000000-0000-0000-0000-000000000000';
    batch uuid[];
    moved bigint;
    total bigint := 0;
    -- Columns by name, because their order in the archive may differ.
    columns text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
        FROM pg_attribute a
        WHERE a.attrelid = 'revertd.outcomes'::regclass AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    LOOP
        SELECT array_agg(n.usage_id ORDER BY n.usage_id) INTO batch FROM (
            SELECT DISTINCT o.usage_id FROM revertd.outcomes o
            WHERE o.refusal IS NULL AND o.usage_id > done
            ORDER BY o.usage_id LIMIT usages
        ) n;
        EXIT WHEN batch IS NULL;
        done := batch[cardinality(batch)];
        EXECUTE format($move$WITH protected AS (
            SELECT o.usage_id
            FROM revertd.outcomes o
            LEFT JOIN billing_transactions entry ON entry.id = o.transaction_id
                AND entry.account_id = o.account_id AND entry.type = 'credit'
                    AND entry.amount = o.amount
                AND entry.metadata ->> 'revert_request_using' = o.usage_id::text
            WHERE o.usage_id = ANY ($1) AND o.refusal IS NULL
            GROUP BY o.usage_id
            HAVING max(o.decided_at) < now() - $2
                AND count(*) = count(entry.id)
                -- Reverted fully, or decided under `once`. Before you change revert.policy to
                -- `cumulative`, remove the second half: the same request could otherwise revert a
                -- partial amount again.
                AND (sum(o.amount) = max(o.usage_amount) OR bool_and(NOT o.cumulative))
        ), gone AS (
            DELETE FROM revertd.outcomes o USING protected p
            WHERE o.usage_id = p.usage_id AND o.refusal IS NULL
            RETURNING o.*
        )
        INSERT INTO revertd.outcomes_archive (%1$s) SELECT %1$s FROM gone$move$, columns)
            USING batch, older_than;
        GET DIAGNOSTICS moved = ROW_COUNT;
        total := total + moved;
        COMMIT;
    END LOOP;
    RAISE NOTICE 'outcomes archived: %', total;
END
$$;

CALL pg_temp.archive_outcomes(:older_than, 10000);
