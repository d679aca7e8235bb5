//! `revertd dead-letters show`: one dead letter, and the state of its usage in the ledger.

use std::fmt::Write;

use serde_json::{Value, json};

use super::setup::*;
use crate::support::dead_letters::DeadLetter;
use crate::support::*;

#[tokio::test]
async fn a_too_large_body_is_cut_in_its_dead_letter() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let request = Request::raw(vec![b'x'; 3_000_000]).id("large");
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "MALFORMED_REQUEST");
    assert!(worker.stop().await.success());
    let letter = env.peek(&env.name("dead")).await;
    assert_eq!(letter.body, vec![b'x'; 65_536]);
    let size = lapin::types::AMQPValue::LongLongInt(3_000_000);
    assert_eq!(letter.header("x-body-size"), Some(size));
    let digest = ring::digest::digest(&ring::digest::SHA256, &request.body);
    let mut hexadecimal = String::new();
    for byte in digest.as_ref() {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    assert_eq!(letter.text_header("x-body-sha256"), Some(hexadecimal));
    let listed = &listed(&env, &[])[0];
    assert_eq!(listed["cut_from_bytes"], 3_000_000);
    let id = listed["id"].as_str().expect("text");
    let (_, shown, _) = dead_letters(&env, &["show", id]);
    assert!(
        shown.contains("the first 65536 of 3000000 bytes"),
        "{shown}"
    );
    let done = acted(&env, &["replay", "--all", "--include-malformed"]);
    assert_eq!(done["replayed"], 0, "{done}");
    assert_eq!(env.depth(&env.name("dead")).await, 1);
    env.teardown().await;
}

#[tokio::test]
async fn show_prints_the_dead_letter_and_the_ledger_state() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (org, usage, _) = mixed(&env).await;
    let mut events = env.events().await;
    let reverted =
        Request::json(&json!({"org_id": org, "usage_id": usage, "amount": 5})).id("before");
    env.publish(&reverted).await;
    let event = events.answer(&reverted).await;
    worker.stop().await;
    let (status, stdout, stderr) = dead_letters(&env, &["show", "two"]);
    assert_eq!(status, 0, "{stderr}");
    let usage = usage.to_string();
    for line in [
        "reason   RETRIES_EXHAUSTED",
        "error    it broke (code 13)",
        "client   render",
        "attempts 4",
        "header x-kept: \"kept\"",
        "request before of client -: 5 of usage",
        "5 of 20 given back, 15 remain",
        event.json()["id"].as_str().expect("an id"),
        &usage,
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    let (_, stdout, _) = dead_letters(&env, &["show", "two", "--output", "json"]);
    let shown: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(shown["properties"]["headers"]["x-attempts"], 4);
    assert!(
        shown["body"]
            .as_str()
            .is_some_and(|body| body.contains("orgId"))
    );
    assert_eq!(shown["known"]["outcomes"][0]["request_id"], "before");
    // An unreadable letter is shown as far as it can be read.
    let (status, stdout, stderr) = dead_letters(&env, &["show", "\u{fffd}\u{fffd}"]);
    assert_eq!(status, 0, "{stderr}");
    assert!(
        stdout.contains("cannot be read") && stdout.contains("body, 2 bytes"),
        "{stdout}"
    );
    // One id, two requests; and none.
    let same = [
        DeadLetter::of(b"{}").id("same").client("a"),
        DeadLetter::of(b"{}").id("same").client("b"),
    ];
    env.put_dead_letters(&same).await;
    let (status, _, stderr) = dead_letters(&env, &["show", "same"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("client a") && stderr.contains("client b"),
        "{stderr}"
    );
    let (status, _, stderr) = dead_letters(&env, &["show", "none"]);
    assert!(
        status == 1 && stderr.contains("dead-letters list"),
        "{stderr}"
    );
    // A terminal obeys nothing that a stranger wrote.
    env.put_dead_letters(&[DeadLetter::of(b"\x1b[2J").id("\x1b[31m")])
        .await;
    let (_, stdout, _) = dead_letters(&env, &["show", "\x1b[31m"]);
    assert!(
        !stdout.contains('\x1b') && stdout.contains("\\u{1b}[2J"),
        "{stdout}"
    );
    env.teardown().await;
}
