-- What operators did to dead letters: who, when, what, and why. Written by `revertd dead-letters replay` and `discard`
-- before they act, so that whoever kills them leaves a trace; rows are only ever added.

-- One run of the command.
CREATE TABLE revertd.interventions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL,
    -- Who says that he did it, and the database's role that wrote it.
    done_by text NOT NULL,
    done_as text NOT NULL DEFAULT session_user,
    began_at timestamptz NOT NULL DEFAULT now(),
    -- Which letters were meant: the filters, as they were given.
    chosen jsonb NOT NULL,
    why text,
    -- Where discarded letters were saved.
    saved_to text,
    CONSTRAINT interventions_action_known CHECK (action IN ('replay', 'discard')),
    CONSTRAINT interventions_by_somebody CHECK (done_by <> ''),
    CONSTRAINT interventions_discard_says_why CHECK (action <> 'discard' OR coalesce(why <> '', false))
);

-- Each letter, noted before anything is done to it. Letters go by parts: a part that is not in the next table was
-- interrupted, and its letters may be in the queue still.
CREATE TABLE revertd.intervention_letters (
    intervention bigint NOT NULL REFERENCES revertd.interventions,
    part integer NOT NULL,
    -- Follows from client, message id and body, so that copies of one request have one.
    letter uuid NOT NULL,
    client text NOT NULL,
    message_id text,
    -- As far as the body told it.
    usage_id uuid,
    reason text NOT NULL
);

CREATE INDEX intervention_letters_intervention ON revertd.intervention_letters (intervention, part);
CREATE INDEX intervention_letters_usage ON revertd.intervention_letters (usage_id) WHERE usage_id IS NOT NULL;
CREATE INDEX intervention_letters_request ON revertd.intervention_letters (message_id) WHERE message_id IS NOT NULL;

-- The parts that were carried out to the end.
CREATE TABLE revertd.intervention_parts (
    intervention bigint NOT NULL REFERENCES revertd.interventions,
    part integer NOT NULL,
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (intervention, part)
);
