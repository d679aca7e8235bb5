//! Writes request files and runs `revertd submit --file`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::*;

/// The exit status, standard output and standard error.
pub fn submit(env: &TestEnv, file: &Path, arguments: &[&str]) -> (i32, String, String) {
    let path = file.to_str().expect("UTF-8");
    let all = [
        &["submit", "--file", path, "--max-attempts", "1"],
        arguments,
    ]
    .concat();
    let output = env.command(&all).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

pub fn objects(stdout: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).expect("an object a line");
    stdout.lines().map(read).collect()
}

/// The counts at the end of the output as JSON.
pub fn summary(stdout: &str) -> BTreeMap<String, u64> {
    let last = objects(stdout).pop().expect("a summary");
    serde_json::from_value(last["summary"].clone()).expect("counts")
}

pub fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let owned = expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    owned.collect()
}

/// A folder, and a file in it with a revert of 5 of each of so many usages of 20.
pub async fn reverts(env: &TestEnv, account: Uuid, count: usize) -> (TempDir, Vec<Value>) {
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let usage = env.usage(account, 20).await;
        lines.push(json!({"usage_id": usage, "amount": 5, "billing_id": account}));
    }
    (TempDir::new().expect("a folder"), lines)
}

pub fn write(path: &Path, lines: &[Value]) {
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n")).expect("written");
}

pub async fn entries(env: &TestEnv) -> i64 {
    env.count("SELECT count(*) FROM billing_transactions WHERE metadata ? 'revert_request_using'")
        .await
}
