-- Who may ask for reverts of whose usage (authorization.mode = "grants"). A client is the login that the broker
-- authenticated. Read by the statement that decides a batch, so that a grant that is gone counts from the next batch on.
CREATE TABLE revertd.grants (
    client text COLLATE "C" NOT NULL,
    -- NULL: every org, those to come included.
    org_id uuid,
    -- Who says that he granted it, and the database's role that wrote it.
    granted_by text NOT NULL,
    granted_as text NOT NULL DEFAULT session_user,
    granted_at timestamptz NOT NULL DEFAULT now(),
    -- An AMQP user_id: a short string.
    CONSTRAINT grants_client_is_a_login CHECK (octet_length(client) BETWEEN 1 AND 255),
    CONSTRAINT grants_by_somebody CHECK (granted_by <> '')
);

CREATE UNIQUE INDEX grants_org ON revertd.grants (client, org_id) WHERE org_id IS NOT NULL;

CREATE UNIQUE INDEX grants_every_org ON revertd.grants (client) WHERE org_id IS NULL;
