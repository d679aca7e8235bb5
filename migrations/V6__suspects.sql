-- Messages that came back and are being tried again: how often a try began that did not end. A crash leaves its row.
CREATE TABLE revertd.suspects (
    -- The digest of client, message id and body.
    message uuid NOT NULL,
    -- Tries together with other messages, and tries alone.
    tries_together integer NOT NULL,
    tries_alone integer NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT suspects_pkey PRIMARY KEY (message),
    CONSTRAINT suspects_counts_not_negative CHECK (tries_together >= 0 AND tries_alone >= 0)
);
