//! The lines of a file in groups.

use serde_json::json;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn lines_in_groups_are_the_same_requests_as_alone() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, mut lines) = reverts(&env, customer.account, 10).await;
    let file = folder.path().join("reverts.ndjson");
    lines[3]["message_id"] = json!("mine");
    lines[4]["amount"] = json!(21);
    // Asked twice in one group.
    lines[8] = lines[7].clone();
    write(&file, &lines);
    let groups_of = |size| ["--group-size", size, "--output", "json"];
    let expected = (
        1,
        counts(&[("AMOUNT_EXCEEDS_USAGE", 1), ("usage.reverted", 9)]),
    );
    let mut answers = Vec::new();
    for size in ["3", "3", "1", "100"] {
        let (status, stdout, stderr) = submit(&env, &file, &groups_of(size));
        assert_eq!((status, summary(&stdout)), expected, "{stderr}");
        let mut events = objects(&stdout);
        events.pop();
        events.sort_by_key(|line| line["line"].as_u64());
        assert_eq!(events[3]["event"]["data"]["request_id"], "mine");
        answers.push(events);
    }
    assert!(answers.iter().all(|events| *events == answers[0]));
    assert_eq!(entries(&env).await, 16);
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 9);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_refused_line_refuses_its_atomic_group() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (folder, mut lines) = reverts(&env, customer.account, 10).await;
    let file = folder.path().join("reverts.ndjson");
    let failed = folder.path().join("failed");
    lines[4]["amount"] = json!(21);
    write(&file, &lines);
    let atomic = ["--atomic", "--group-size", "3"];
    let expected = [
        "line 4: WHEN usage.revert.rejected: GROUP_REFUSED",
        ", index 1, reason AMOUNT_EXCEEDS_USAGE",
        "line 5: WHEN usage.revert.rejected: AMOUNT_EXCEEDS_USAGE",
        "line 6: WHEN usage.revert.rejected: GROUP_REFUSED",
        "        2  GROUP_REFUSED\n",
        "        7  usage.reverted\n",
    ];
    let (status, stdout, stderr) = submit(&env, &file, &[&atomic[..], &["--dry-run"]].concat());
    assert_eq!((status, entries(&env).await), (1, 0));
    assert!(
        stderr.contains("each group of 3 lines is reverted as a whole"),
        "{stderr}"
    );
    for text in expected {
        let text = text.replace("WHEN", "would be answered");
        assert!(stdout.contains(&text), "{text}: {stdout}");
    }
    let kept = ["--failed", failed.to_str().expect("UTF-8")];
    for _ in 0..2 {
        let (status, stdout, stderr) = submit(&env, &file, &[&atomic[..], &kept].concat());
        assert_eq!((status, entries(&env).await), (1, 14));
        assert!(
            stderr.contains("each group of 3 lines is reverted as a whole"),
            "{stderr}"
        );
        for text in expected {
            let text = text.replace("WHEN ", "");
            assert!(stdout.contains(&text), "{text}: {stdout}");
        }
    }
    let mut left = objects(&std::fs::read_to_string(&failed).expect("written"));
    left.sort_by_key(|line| line["failed"]["line"].as_u64());
    let numbers: Vec<_> = left.iter().map(|line| &line["failed"]["line"]).collect();
    assert_eq!(numbers, [4, 5, 6]);
    env.teardown().await;
}

#[tokio::test]
async fn groups_are_within_the_limits() {
    // Two of these lines have less than 512 bytes as a group, three have more.
    let limits = [("AMQP__MAX_GROUP", "4"), ("AMQP__MAX_GROUP_BYTES", "512")];
    let (env, _worker) = TestEnv::with_worker_set(&limits).await;
    let customer = env.customer().await;
    let (folder, lines) = reverts(&env, customer.account, 10).await;
    let file = folder.path().join("reverts.ndjson");
    write(&file, &lines);
    for (arguments, text) in [
        (
            &["--group-size", "5"][..],
            "5 is more than the 4 requests of amqp.max_group",
        ),
        (
            &["--group-size", "3", "--window", "2"],
            "3 is more than --window 2",
        ),
        (&["--group-size", "0"], "--group-size"),
    ] {
        let (status, stdout, stderr) = submit(&env, &file, arguments);
        assert_eq!((status, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
    let (status, stdout, stderr) = submit(&env, &file, &["--output", "json"]);
    let reverted = counts(&[("usage.reverted", 10)]);
    assert_eq!((status, summary(&stdout)), (0, reverted), "{stderr}");

    let group = json!({"requests": [lines[0]]}).to_string();
    for (arguments, status, text) in [
        (["--body", &group, "--message-id", "g"], 1, "with --file"),
        (["--body", "{}", "--group-size", "2"], 2, "need --file"),
    ] {
        let output = env
            .command(&[&["submit"], &arguments[..]].concat())
            .output();
        let output = output.expect("runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
    env.teardown().await;
}
