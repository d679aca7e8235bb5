//! The checks before publishing, and the predictions of `--dry-run`.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn invalid_lines_are_reported_before_publishing() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 2).await;
    let file = folder.path().join("reverts.ndjson");
    let text = format!(
        "{}\n\nrubbish\n{}\n{{\"usage_id\": \"x\", \"amount\": 0}}\n{{\"amount\": \"{}\"}}\n{}\n",
        lines[0],
        json!({"usage_id": Uuid::new_v4(), "amount": 1, "billing_id": customer.account,
            "message_id": 7}),
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
        "4 lines are invalid, and nothing was sent",
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
    // Apart from their times, the events are the predicted ones.
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

    // A line whose usage an earlier transaction would change says so.
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
        stdout.contains("(if line 1 does not change the usage)"),
        "{stdout}"
    );
    assert!(
        stdout.contains("102 requests, none sent (--dry-run)"),
        "{stdout}"
    );
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
    assert!(stderr.contains("not a regular file"), "{stderr}");
    env.teardown().await;
}
