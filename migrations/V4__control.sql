-- Whether the fleet takes requests: a log that only grows, whose last row decides. Without a row, it does.
CREATE TABLE revertd.control (
    id bigint GENERATED ALWAYS AS IDENTITY,
    paused boolean NOT NULL,
    -- For whoever finds the fleet paused.
    why text,
    -- Who says that he did it, and the database's role that wrote it.
    changed_by text NOT NULL,
    changed_as text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT control_pkey PRIMARY KEY (id),
    CONSTRAINT control_by_somebody CHECK (changed_by <> ''),
    CONSTRAINT control_pause_has_a_reason CHECK (NOT paused OR coalesce(why <> '', false))
);
