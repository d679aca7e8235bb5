-- A refusal is stored with the code and the words that its event has, so that every version tells the same event of it,
-- also one that does not know the reason, or words it otherwise. Rows from before are of the reasons below, whose code and
-- words every version knows.
ALTER TABLE revertd.outcomes
    ADD COLUMN refusal_code integer,
    ADD COLUMN refusal_message text;

-- The archive has the columns of the outcomes, in their order.
ALTER TABLE IF EXISTS revertd.outcomes_archive
    ADD COLUMN IF NOT EXISTS refusal_code integer,
    ADD COLUMN IF NOT EXISTS refusal_message text;

-- Under the same name: an older version, which may run beside a newer one, looks whether it is there. A reason that a later
-- version knows is stored as well, if it can be told.
ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_refusal_known;
ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_refusal_known CHECK (
    refusal ~ '^[A-Z][A-Z0-9_]{0,62}$' AND (refusal_code IS NOT NULL OR refusal IN (
        'REQUEST_ID_REUSED', 'USAGE_NOT_FOUND', 'REVERT_OF_REVERT', 'NOT_A_USAGE',
        'REVERT_WINDOW_CLOSED', 'ALREADY_REVERTED', 'AMOUNT_EXCEEDS_USAGE')));

-- Code (google.rpc.Code) and words, of a refusal alone, or neither.
ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_refusal_words CHECK (
    num_nonnulls(refusal_code, refusal_message) = 0
    OR num_nonnulls(refusal, refusal_code, refusal_message) = 3
        AND refusal_code >= 1 AND refusal_code <= 16 AND refusal_message <> '');
