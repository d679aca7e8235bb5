//! Writes usages and runs `revertd usages`.

use serde_json::Value;
use uuid::Uuid;

use crate::support::*;

/// When the first usage of a test was written; the others follow minute by minute.
pub const FIRST: &str = "2024-11-01T08:00:00Z";

/// The status, the requests, and what was said on standard error.
pub fn usages(env: &TestEnv, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let (status, stdout, stderr) = told(env, arguments);
    let read = |line: &str| serde_json::from_str(line).expect("an object a line");
    (status, stdout.lines().map(read).collect(), stderr)
}

/// The same with standard output as text.
pub fn told(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let all = [&["usages"], arguments].concat();
    let output = env.command(&all).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

/// The usages of the requests of an account, in their order.
pub fn of_account(env: &TestEnv, account: Uuid) -> Vec<Uuid> {
    let (status, lines, stderr) = usages(env, &["--account", &account.to_string()]);
    assert_eq!(status, 0, "{stderr}");
    ids(&lines)
}

pub fn ids(lines: &[Value]) -> Vec<Uuid> {
    let id = |line: &Value| line["usage_id"].as_str().expect("text").parse();
    lines.iter().map(|line| id(line).expect("a UUID")).collect()
}

/// An entry of the customer, written so many minutes after the first.
pub async fn entry(
    env: &TestEnv,
    account: Uuid,
    (kind, amount, minutes): (&str, i64, i32),
    source: Option<&str>,
    metadata: &Value,
) -> Uuid {
    let id = Uuid::new_v4();
    let insert = format!(
        "INSERT INTO billing_transactions (id, account_id, type, amount, source, metadata, \
         created_at) VALUES ($1, $2, $3, $4, $5, $6, \
         '{FIRST}'::timestamptz + make_interval(mins => $7))"
    );
    env.db
        .execute(
            &insert,
            &[&id, &account, &kind, &amount, &source, metadata, &minutes],
        )
        .await
        .expect("inserted");
    id
}
