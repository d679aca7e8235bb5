-- frontier: the four tables of Frontier that a revert reads or writes, as Frontier declares them.
-- Run with ledger.manage = true, with the ledger's schema first in search_path. Existing tables and
-- indexes are kept.
CREATE TABLE IF NOT EXISTS organizations (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    name text UNIQUE NOT NULL,
    title text,
    state text NOT NULL DEFAULT 'enabled',
    metadata jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE TABLE IF NOT EXISTS projects (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    name text UNIQUE NOT NULL,
    title text,
    org_id uuid NOT NULL REFERENCES organizations (id),
    state text NOT NULL DEFAULT 'enabled',
    metadata jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE TABLE IF NOT EXISTS billing_customers (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    org_id uuid NOT NULL REFERENCES organizations (id),
    provider_id text UNIQUE,
    name text NOT NULL,
    email text NOT NULL,
    phone text,
    address jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    currency text NOT NULL DEFAULT 'usd',
    state text NOT NULL DEFAULT 'active',
    tax jsonb,
    credit_min bigint DEFAULT 0,
    due_in_days integer DEFAULT 30,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX IF NOT EXISTS billing_customers_org_id_idx ON billing_customers (org_id);

CREATE TABLE IF NOT EXISTS billing_transactions (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    account_id uuid,
    type text,
    source text,
    amount bigint NOT NULL DEFAULT 0,
    description text,
    metadata jsonb NOT NULL DEFAULT '{}',
    user_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS billing_transactions_account_id_idx ON billing_transactions (account_id);
