-- The n-th revert continues revertd's own reverts before it: what they gave back, added up, is what it counts as given back
-- by revertd. What others gave back may have grown or shrunk meanwhile, since their entries can be deleted; so it says
-- nothing of the order. That all reverts of revertd together stay within the usage follows from this rule and from
-- outcomes_within_usage, whatever others did.
CREATE OR REPLACE FUNCTION revertd.check_chain() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT EXISTS (
        SELECT FROM revertd.outcomes o
        WHERE o.usage_id = NEW.usage_id AND o.refusal IS NULL
            AND o.revert_no = NEW.revert_no - 1
            AND o.usage_amount = NEW.usage_amount
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
