//! revertd beside a Frontier that writes the same tables.

use serde_json::json;

use crate::support::*;

/// Frontier's own tables, as its migrations leave them: with columns and references that revertd
/// ignores.
const FRONTIERS_TABLES: &str = "
    CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\";
    CREATE TABLE organizations (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name text UNIQUE NOT NULL, title text,
        avatar text, state text DEFAULT 'enabled', metadata jsonb,
        created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), deleted_at \
        timestamptz);
    CREATE TABLE projects (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), name text UNIQUE NOT NULL, title text,
        org_id uuid NOT NULL REFERENCES organizations (id), state text DEFAULT 'enabled', metadata \
        jsonb,
        created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), deleted_at \
        timestamptz);
    CREATE TABLE billing_customers (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
        org_id uuid NOT NULL REFERENCES organizations (id), provider_id text UNIQUE,
        name text NOT NULL, email text NOT NULL, phone text, address jsonb NOT NULL, metadata \
        jsonb NOT NULL,
        currency text NOT NULL DEFAULT 'usd', state text NOT NULL DEFAULT 'active', tax jsonb,
        credit_min int8 DEFAULT 0, due_in_days int DEFAULT 30,
        payment_mode text GENERATED ALWAYS AS (CASE WHEN credit_min < 0 THEN 'postpaid' ELSE \
        'prepaid' END) STORED,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT \
        now(),
        deleted_at timestamptz);
    CREATE INDEX billing_customers_org_id_idx ON billing_customers (org_id);
    CREATE TABLE billing_transactions (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), account_id uuid, type varchar, source \
        varchar,
        amount bigint NOT NULL DEFAULT 0, description text, metadata jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT \
        now(),
        user_id text);
    CREATE INDEX billing_transactions_account_id_idx ON billing_transactions (account_id);
";

/// An environment whose tables are Frontier's, in the schema `frontier`.
async fn beside_frontier() -> TestEnv {
    let mut env = TestEnv::new().await;
    env.sql("DROP SCHEMA revertd CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA frontier")
        .await;
    let database = &env.database;
    env.sql(&format!(
        "ALTER DATABASE {database} SET search_path = frontier"
    ))
    .await;
    env.sql("SET search_path = frontier").await;
    env.sql(FRONTIERS_TABLES).await;
    env.set("LEDGER__SCHEMA", "frontier");
    env.set("LEDGER__MANAGE", "false");
    env
}

#[tokio::test]
async fn revertd_adds_one_index_to_frontiers_tables() {
    let env = beside_frontier().await;
    let shape = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'frontier'";
    let (before, indexes) = (
        env.count(shape).await,
        env.count("SELECT count(*) FROM pg_indexes WHERE schemaname = 'frontier'")
            .await,
    );
    let _worker = env.start_worker().await;
    assert_eq!(env.count(shape).await, before);
    let after = env
        .count("SELECT count(*) FROM pg_indexes WHERE schemaname = 'frontier'")
        .await;
    assert_eq!(after, indexes + 1);
    let references = "SELECT count(*) FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid \
        WHERE c.contype = 'f' AND c.connamespace = 'revertd'::regnamespace \
            AND r.relnamespace <> 'revertd'::regnamespace";
    assert_eq!(env.count(references).await, 0);
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5);
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    // Frontier deletes an account with its entries, and revertd's tables do not prevent it.
    env.sql(&format!(
        "DELETE FROM billing_transactions WHERE account_id = '{0}'; \
             DELETE FROM billing_customers WHERE id = '{0}'",
        customer.account
    ))
    .await;
    env.teardown().await;
}

#[tokio::test]
async fn reverts_by_frontier_count_under_any_id() {
    for managed in [false, true] {
        let env = if managed {
            TestEnv::new().await
        } else {
            beside_frontier().await
        };
        let _worker = env.start_worker().await;
        let (mut events, customer) = (env.events().await, env.customer().await);
        let account = customer.account;
        for style in 0..6 {
            let usage = env.usage(account, 20).await;
            let usage_id = match style {
                2 => usage.to_string().to_uppercase(),
                3 => usage.simple().to_string(),
                4 => usage.urn().to_string(),
                5 => usage.braced().to_string(),
                _ => usage.to_string(),
            };
            let name = match style {
                1 => format!("{usage_id}:{account}"),
                _ => format!("{usage_id}:0:{account}"),
            };
            let revert = env.frontier_revert(&name, account, &usage_id, 7).await;
            let request = Request::revert(account, usage, 5);
            env.publish(&request).await;
            let event = events.answer(&request).await;
            assert_eq!(event.verdict(), "ALREADY_REVERTED", "{usage_id}");
            let metadata = &event.json()["data"]["error"]["details"][0]["metadata"];
            assert_eq!(metadata["transaction_id"], json!(revert));
            assert_eq!(metadata["amount"], "7");
            let request = Request::revert(account, revert, 5);
            env.publish(&request).await;
            assert_eq!(events.answer(&request).await.verdict(), "REVERT_OF_REVERT");
        }
        env.teardown().await;
    }
}

#[tokio::test]
async fn cumulative_counts_reverts_by_frontier() {
    let mut env = beside_frontier().await;
    env.set("REVERT__POLICY", "cumulative");
    let _worker = env.start_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let account = customer.account;
    let usage = env.usage(account, 20).await;
    env.frontier_revert(
        &format!("{usage}:0:{account}"),
        account,
        &usage.to_string(),
        7,
    )
    .await;
    let mut ask = async |amount| {
        let request = Request::revert(account, usage, amount);
        env.publish(&request).await;
        events.answer(&request).await
    };
    assert_eq!(ask(14).await.verdict(), "AMOUNT_EXCEEDS_USAGE");
    let event = ask(6).await.json();
    assert_eq!(event["data"]["reverted_total"], "13");
    let second = uuid::Uuid::new_v5(
        &ledger::NAMESPACE,
        format!("{usage}:1:{account}").as_bytes(),
    );
    assert_eq!(event["data"]["transaction_id"], json!(second));
    env.frontier_revert(
        &format!("{usage}:2:{account}"),
        account,
        &usage.to_string(),
        5,
    )
    .await;
    assert_eq!(ask(3).await.verdict(), "AMOUNT_EXCEEDS_USAGE");
    assert_eq!(ask(2).await.json()["data"]["remaining"], "0");
    env.teardown().await;
}

#[tokio::test]
async fn an_entry_committed_meanwhile_is_decided_again() {
    let mut env = beside_frontier().await;
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    let _worker = env.start_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let account = customer.account;
    let usage = env.usage(account, 20).await;
    let frontier = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let id = uuid::Uuid::new_v5(
        &ledger::NAMESPACE,
        format!("{usage}:0:{account}").as_bytes(),
    );
    frontier
        .batch_execute(&format!(
            "BEGIN; INSERT INTO billing_transactions (id, account_id, type, source, amount, \
                metadata) VALUES \
             ('{id}', '{account}', 'credit', 'system.revert.x', 5, \
             '{{\"revert_request_using\": \"{usage}\"}}')"
        ))
        .await
        .expect("inserted");
    let request = Request::revert(account, usage, 5);
    env.publish(&request).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'revertd'";
    eventually("the worker waits for Frontier", async || {
        env.count(waiting).await == 1
    })
    .await;
    frontier.batch_execute("COMMIT").await.expect("committed");
    assert_eq!(events.answer(&request).await.verdict(), "ALREADY_REVERTED");
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes WHERE refusal IS NULL")
            .await,
        0
    );
    assert_eq!(env.reverts(usage).await.len(), 1, "Frontier's alone");
    env.teardown().await;
}

#[tokio::test]
async fn tables_that_do_not_fit_are_reported() {
    let mut env = TestEnv::new().await;
    env.set("LEDGER__SCHEMA", "elsewhere");
    env.set("LEDGER__MANAGE", "false");
    let run = |env: &TestEnv| {
        let output = env.command(&["migrate"]).output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(
        run(&env).contains("organizations.id is missing"),
        "{}",
        run(&env)
    );
    env.set("LEDGER__SCHEMA", "public");
    env.sql("ALTER TABLE billing_transactions ALTER amount TYPE numeric")
        .await;
    assert!(
        run(&env).contains("billing_transactions.amount is numeric, not int8"),
        "{}",
        run(&env)
    );
    env.sql(
        "ALTER TABLE billing_transactions ALTER amount TYPE bigint; \
             ALTER TABLE billing_transactions ADD invoice uuid NOT NULL",
    )
    .await;
    assert!(
        run(&env).contains("billing_transactions.invoice is required"),
        "{}",
        run(&env)
    );
    env.teardown().await;
}
