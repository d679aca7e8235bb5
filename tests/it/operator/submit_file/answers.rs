//! Each line of a file is answered, also when the file is sent again.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

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
    lines[7] = json!({"usageId": usage, "amount": "5", "billingId": customer.account,
        "message_id": "mine", "x": 1});
    lines.push(json!({"usage_id": Uuid::new_v4(), "amount": 5, "org_id": customer.org}));
    let twice = lines[0]["usage_id"].clone();
    lines.push(
        json!({"usage_id": twice, "amount": 6, "billing_id": customer.account,
        "message_id": "more"}),
    );
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

    // Failed lines can be sent again under another batch, once the cause is gone.
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
    // No worker runs: the sent requests wait in the queue.
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
    assert!(stderr.contains("check that a worker runs"), "{stderr}");
    let kept = objects(&std::fs::read_to_string(&failed).expect("written"));
    assert_eq!(kept.len(), 40);
    // They may be reverted yet: under another id they would be reverted twice.
    for line in kept {
        assert_eq!(line["message_id"], line["failed"]["request_id"], "{line}");
    }

    // After an interrupt it waits for the requests in flight.
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
