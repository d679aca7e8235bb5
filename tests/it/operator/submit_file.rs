//! `revertd submit --file`: thousands of requests from a file, each answered, and all of it again without harm.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::*;

mod mistakes;

/// The status, what was told, and what was said on standard error.
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

/// The counts at the end of what was told as objects.
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
async fn reverts(env: &TestEnv, account: Uuid, count: usize) -> (TempDir, Vec<Value>) {
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let usage = env.usage(account, 20).await;
        lines.push(json!({"usage_id": usage, "amount": 5, "billing_id": account}));
    }
    (TempDir::new().expect("a folder"), lines)
}

fn write(path: &Path, lines: &[Value]) {
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n")).expect("written");
}

pub async fn entries(env: &TestEnv) -> i64 {
    env.count("SELECT count(*) FROM billing_transactions WHERE metadata ? 'revert_request_using'")
        .await
}

#[tokio::test]
async fn each_line_is_answered_and_again_the_same() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, mut lines) = reverts(&env, customer.account, 300).await;
    let (file, failed) = (
        folder.path().join("reverts.ndjson"),
        folder.path().join("failed"),
    );
    // Spelled in another way, and with an id of its own.
    let usage = lines[7]["usage_id"].as_str().expect("text").to_uppercase();
    lines[7] = json!({"usageId": usage, "amount": "5", "billingId": customer.account, "message_id": "mine", "x": 1});
    lines.push(json!({"usage_id": Uuid::new_v4(), "amount": 5, "org_id": customer.org}));
    let twice = lines[0]["usage_id"].clone();
    lines.push(json!({"usage_id": twice, "amount": 6, "billing_id": customer.account, "message_id": "more"}));
    write(&file, &lines);
    let failed_to = [
        "--failed",
        failed.to_str().expect("UTF-8"),
        "--window",
        "50",
    ];
    let (status, stdout, stderr) = submit(&env, &file, &failed_to);
    assert_eq!(status, 1, "{stderr}");
    for text in [
        "line 301: usage.revert.rejected: USAGE_NOT_FOUND",
        "line 302: usage.revert.rejected: ALREADY_REVERTED",
        "302 requests\n",
        "      300  usage.reverted\n",
    ] {
        assert!(stdout.contains(text), "{stdout}");
    }
    assert_eq!(entries(&env).await, 600);
    let mine =
        "SELECT count(*) FROM revertd.outcomes WHERE message_id = 'mine' AND refusal IS NULL";
    assert_eq!(env.count(mine).await, 1);
    let kept = objects(&std::fs::read_to_string(&failed).expect("written"));
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0]["failed"]["reason"], "USAGE_NOT_FOUND");
    assert_eq!(
        (&kept[0]["failed"]["line"], kept[0].get("message_id")),
        (&json!(301), None)
    );
    assert_eq!(kept[1]["message_id"], "more");

    // The same again answers the same, and writes nothing.
    let first = objects(&submit(&env, &file, &["--output", "json"]).1);
    let again = objects(&submit(&env, &file, &["--output", "json"]).1);
    let events = |stdout: &[Value]| -> BTreeMap<u64, Value> {
        let of = |line: &Value| Some((line["line"].as_u64()?, line["event"].clone()));
        stdout.iter().filter_map(of).collect()
    };
    assert_eq!(events(&first), events(&again));
    assert_eq!(events(&again).len(), 302);
    assert_eq!(entries(&env).await, 600);
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes").await,
        302
    );

    // What failed can be sent again: once the cause is gone, under another batch.
    let late = kept[0]["usage_id"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a UUID");
    env.entry(late, customer.account, "debit", "api.usage", 20, &json!({}))
        .await;
    let (status, stdout, _) = submit(&env, &failed, &["--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (
            1,
            counts(&[("ALREADY_REVERTED", 1), ("USAGE_NOT_FOUND", 1)])
        )
    );
    let (status, stdout, _) = submit(&env, &failed, &["--batch", "second", "--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (1, counts(&[("ALREADY_REVERTED", 1), ("usage.reverted", 1)]))
    );
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_csv_file_with_a_header_is_read() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 3).await;
    let file = folder.path().join("reverts.CSV");
    let mut text =
        String::from("\u{feff}usageId,amount,billing_id,project_id,reason,message_id,note\r\n");
    for (index, line) in lines.iter().enumerate() {
        let usage = line["usage_id"].as_str().expect("text");
        let account = customer.account;
        let id = if index == 2 { "third" } else { "" };
        let line = format!("{usage},5,{account},,\"failed, \"\"twice\"\"\",{id},x\r\n");
        text.push_str(&line);
    }
    std::fs::write(&file, text).expect("written");
    let (status, stdout, stderr) = submit(&env, &file, &["--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (0, counts(&[("usage.reverted", 3)])),
        "{stderr}"
    );
    for line in &objects(&stdout)[..3] {
        assert_eq!(line["event"]["data"]["reason"], "failed, \"twice\"");
        let third = line["event"]["data"]["request_id"] == "third";
        assert_eq!(line["line"] == 4, third, "{line}");
    }
    std::fs::write(&file, "usage_id,amount,amount\n").expect("written");
    let (status, _, stderr) = submit(&env, &file, &[]);
    assert!(
        status == 1 && stderr.contains("two columns named amount"),
        "{stderr}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn invalid_lines_are_reported_before_publishing() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 2).await;
    let file = folder.path().join("reverts.ndjson");
    let text = format!(
        "{}\n\nrubbish\n{}\n{{\"usage_id\": \"x\", \"amount\": 0}}\n{{\"amount\": \"{}\"}}\n{}\n",
        lines[0],
        json!({"usage_id": Uuid::new_v4(), "amount": 1, "billing_id": customer.account, "message_id": 7}),
        "1".repeat(70_000),
        lines[1],
    );
    std::fs::write(&file, text).expect("written");
    let (status, stdout, stderr) = submit(&env, &file, &[]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    for expected in [
        "line 3: the body is not valid JSON",
        "line 4: message_id must be",
        "line 5: usage_id must be a hyphenated UUID, as a string; amount must be from 1",
        "line 6: is longer than 65536 bytes",
        "4 lines are no requests, and nothing was sent",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert_eq!(entries(&env).await, 0);
    let (status, stdout, _) = submit(&env, &file, &["--skip-invalid", "--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (1, counts(&[("INVALID_LINE", 4), ("usage.reverted", 2)]))
    );
    for wrong in [
        &["submit", "--file", "x", "--amount", "1"][..],
        &["submit", "--dry-run", "--body", "{}"],
        &["submit", "--dry-run", "--usage-id", "x", "--amount", "1"],
        &["submit", "--body", "{}", "--batch", "b"],
        &["submit", "--file", "x", "--rate", "0"],
    ] {
        assert_eq!(
            env.command(wrong).output().expect("runs").status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    let (status, _, stderr) = submit(&env, Path::new("/nowhere/at/all"), &[]);
    assert!(
        status == 1 && stderr.contains("cannot read /nowhere/at/all"),
        "{stderr}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_dry_run_predicts_the_answers_and_changes_nothing() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, mut lines) = reverts(&env, customer.account, 120).await;
    let file = folder.path().join("reverts.ndjson");
    let account = customer.account;
    let first = lines[0]["usage_id"].clone();
    lines.insert(
        1,
        json!({"usage_id": first, "amount": 6, "billing_id": account}),
    );
    lines.push(json!({"usage_id": Uuid::new_v4(), "amount": 5, "billing_id": account}));
    lines.push(
        json!({"usage_id": lines[5]["usage_id"], "amount": 21, "project_id": Uuid::new_v4()}),
    );
    write(&file, &lines);
    let dry = ["--dry-run", "--output", "json"];
    let (status, stdout, stderr) = submit(&env, &file, &dry);
    assert_eq!(status, 1, "{stderr}");
    let expected = counts(&[
        ("usage.reverted", 120),
        ("ALREADY_REVERTED", 1),
        ("USAGE_NOT_FOUND", 1),
        ("BILLING_ACCOUNT_NOT_FOUND", 1),
    ]);
    assert_eq!(summary(&stdout), expected);
    assert_eq!(entries(&env).await, 0);
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 0);
    let foreseen = objects(&stdout);
    let (status, stdout, _) = submit(&env, &file, &["--output", "json"]);
    assert_eq!((status, summary(&stdout)), (1, expected));
    // But for their times, the events are those that were foreseen.
    let mut came = objects(&stdout);
    came.pop();
    came.sort_by_key(|line| line["line"].as_u64());
    for (line, foreseen) in came.iter_mut().zip(&foreseen) {
        assert_eq!(foreseen["decided_before"], false);
        let mut foreseen = foreseen["event"].clone();
        for event in [&mut line["event"], &mut foreseen] {
            event["time"] = Value::Null;
            if let Some(time) = event.pointer_mut("/data/error/details/0/metadata/time") {
                *time = Value::Null;
            }
        }
        assert_eq!(line["event"], foreseen);
    }
    // And afterwards it says that all is done, which leaves nothing to do.
    let stdout = objects(&submit(&env, &file, &dry).1);
    let before = |line: &&Value| line["decided_before"] == true;
    assert_eq!(
        stdout.iter().filter(before).count(),
        122,
        "all but what is not stored"
    );

    // Where what an earlier line takes is out of sight, it says so.
    let (folder, mut lines) = reverts(&env, account, 101).await;
    lines.push(json!({"usage_id": lines[0]["usage_id"], "amount": 1, "billing_id": account}));
    let file = folder.path().join("more.ndjson");
    write(&file, &lines);
    let (_, stdout, _) = submit(&env, &file, &["--dry-run"]);
    assert!(
        stdout.contains("line 102: would be answered usage.reverted"),
        "{stdout}"
    );
    assert!(
        stdout.contains("(if line 1 leaves the usage as it is)"),
        "{stdout}"
    );
    assert!(
        stdout.contains("102 requests, none sent (--dry-run)"),
        "{stdout}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_second_run_sends_the_remaining_requests() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 40).await;
    let (file, failed) = (
        folder.path().join("reverts.ndjson"),
        folder.path().join("failed"),
    );
    write(&file, &lines);
    assert!(worker.stop().await.success());
    // Nobody answers: what was sent waits in the queue.
    let arguments = [
        "--timeout",
        "300ms",
        "--window",
        "10",
        "--failed",
        failed.to_str().expect("UTF-8"),
        "--output",
        "json",
    ];
    let (status, stdout, stderr) = submit(&env, &file, &arguments);
    assert_eq!(
        (status, summary(&stdout)),
        (3, counts(&[("NO_ANSWER_IN_TIME", 10), ("NOT_SENT", 30)]))
    );
    assert!(stderr.contains("is a worker running"), "{stderr}");
    let kept = objects(&std::fs::read_to_string(&failed).expect("written"));
    assert_eq!(kept.len(), 40);
    // They may be reverted yet: under another id they would be reverted twice.
    for line in kept {
        assert_eq!(line["message_id"], line["failed"]["request_id"], "{line}");
    }

    // Interrupted, it finishes what is on its way.
    let mut worker = env.start_worker().await;
    let path = file.to_str().expect("UTF-8");
    let arguments = ["submit", "--file", path, "--rate", "10", "--output", "json"];
    let mut command = env.command(&arguments).bare();
    let began = Instant::now();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    eventually("some more are reverted", async || {
        env.count("SELECT count(*) FROM revertd.outcomes").await >= 14
    })
    .await;
    assert!(
        began.elapsed() > Duration::from_millis(1200),
        "10 a second: {:?}",
        began.elapsed()
    );
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(3));
    let stdout = summary(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(
        stdout.keys().map(String::as_str).collect::<Vec<_>>(),
        ["NOT_SENT", "usage.reverted"]
    );
    assert_eq!(stdout.values().sum::<u64>(), 40);

    let (status, stdout, _) = submit(&env, &file, &["--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (0, counts(&[("usage.reverted", 40)]))
    );
    assert_eq!(entries(&env).await, 80, "each once");
    assert!(worker.stop().await.success());
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_closed_output_does_not_stop_the_publishing() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 200).await;
    let file = folder.path().join("reverts.ndjson");
    write(&file, &lines);
    let path = file.to_str().expect("UTF-8");
    let arguments = ["submit", "--file", path, "--output", "json"];
    let mut command = env.command(&arguments).bare();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(entries(&env).await, 400);
    env.teardown().await;
}

#[tokio::test]
async fn an_id_may_have_255_bytes_and_pipes_are_refused() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, mut lines) = reverts(&env, customer.account, 12).await;
    for (number, line) in lines.iter_mut().enumerate() {
        line["message_id"] = json!(format!("{number:0255}"));
    }
    let file = folder.path().join("reverts.ndjson");
    write(&file, &lines);
    let (status, stdout, stderr) = submit(&env, &file, &["--output", "json"]);
    assert_eq!(
        (status, summary(&stdout)),
        (0, counts(&[("usage.reverted", 12)])),
        "{stderr}"
    );
    let (status, stdout, stderr) = submit(&env, Path::new("/dev/stdin"), &[]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("no regular file"), "{stderr}");
    env.teardown().await;
}
