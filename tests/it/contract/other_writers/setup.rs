//! Rows that Frontier and other writers leave.

use serde_json::json;
use uuid::Uuid;

use crate::support::ledger::NAMESPACE;
use crate::support::*;

/// A usage of 20 on an account of its own, and the ledger's policy.
pub async fn usage_of(env: &mut TestEnv, policy: &str, amount: i64) -> (Uuid, Uuid) {
    env.set("REVERT__POLICY", policy);
    let account = env.customer().await.account;
    (account, env.usage(account, amount).await)
}

/// The id that Frontier gives the n-th entry on a usage.
pub fn entry_id(usage: Uuid, n: u32, account: Uuid) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{usage}:{n}:{account}").as_bytes())
}

/// A debit of a reporter who set the metadata so that it names a usage.
pub async fn debit_that_names(env: &TestEnv, account: Uuid, usage: Uuid) {
    let metadata = json!({"revert_request_using": usage});
    let id = Uuid::new_v4();
    env.entry(id, account, "debit", "api.usage", 1, &metadata)
        .await;
}

/// Both legs of a revert as Frontier writes it, in a transaction of its own that is still open.
pub async fn frontier_reverting(
    env: &TestEnv,
    account: Uuid,
    usage: Uuid,
    n: u32,
    amount: i64,
) -> tokio_postgres::Client {
    let frontier = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let id = entry_id(usage, n, account);
    frontier
        .batch_execute(&format!(
            "BEGIN; INSERT INTO billing_transactions (id, account_id, type, source, amount, \
                metadata) VALUES \
             ('{id}', '{account}', 'credit', 'system.revert.x', {amount}, \
             '{{\"revert_request_using\": \"{usage}\"}}'), \
             (uuid_generate_v4(), uuid_nil(), 'debit', 'system.revert.x', {amount}, \
              '{{\"revert_request_using\": \"{usage}\"}}')"
        ))
        .await
        .expect("inserted");
    frontier
}

pub async fn set_created_at(env: &TestEnv, id: Uuid, time: &str) {
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = {time} WHERE id = '{id}'"
    ))
    .await;
}

/// The findings of `revertd verify`.
pub fn verified(env: &TestEnv) -> Vec<String> {
    let output = env
        .command(&["verify", "--output", "json"])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let findings = told.lines().filter(|line| line.contains("\"code\""));
    findings.map(str::to_owned).collect()
}

/// The sum of the reverts of a usage on customers' accounts.
pub async fn given_back(env: &TestEnv, usage: Uuid) -> i64 {
    let reverts = env.reverts(usage).await;
    let credits = reverts
        .iter()
        .filter(|row| row.kind.as_deref() == Some("credit"));
    credits.map(|row| row.amount).sum()
}
