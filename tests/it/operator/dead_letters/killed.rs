//! A replay or discard that is killed at any moment loses nothing, and can be run again.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use uuid::Uuid;

use super::setup::{command, dead_letters, env_without_worker};
use crate::support::dead_letters::DeadLetter;
use crate::support::*;

/// Two windows of letters on usages of their own.
const LETTERS: usize = 250;

async fn env() -> (TestEnv, Vec<Uuid>) {
    let env = env_without_worker().await;
    let customer = env.customer().await;
    let (mut usages, mut queued) = (Vec::new(), Vec::new());
    for _ in 0..LETTERS {
        let usage = env.usage(customer.account, 20).await;
        usages.push(usage);
        queued.push(DeadLetter::new(customer.account, usage, 20));
    }
    env.put_dead_letters(&queued).await;
    (env, usages)
}

fn kill(env: &TestEnv, failpoint: &str, arguments: &[&str]) {
    let mut command = command(env, arguments);
    let output = command.env("FAILPOINTS", failpoint).output().expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{failpoint}: {stderr}");
}

async fn is_decided_once(failpoint: &str) {
    let (env, usages) = env().await;
    kill(&env, failpoint, &["replay", "--all", "--yes"]);
    let dead = async || env.depth(&env.name("dead")).await as usize;
    let work = async || env.depth(&env.name("work")).await as usize;
    // Each is in one of the queues at least, whenever one looks.
    assert!(
        dead().await + work().await >= LETTERS || {
            eventually("the letters are back", async || {
                dead().await + work().await >= LETTERS
            })
            .await;
            true
        }
    );
    let (status, stdout, stderr) = dead_letters(&env, &["replay", "--all", "--yes"]);
    assert_eq!(status, 0, "{stdout}{stderr}");
    eventually("none is left", async || dead().await == 0).await;
    let copies = work().await;
    assert!(copies >= LETTERS, "{copies}");
    let mut events = env.events().await;
    let mut worker = env.start_worker().await;
    let answers = events.take(copies).await;
    let ids: BTreeSet<_> = answers
        .iter()
        .map(|event| event.json()["id"].to_string())
        .collect();
    assert_eq!(
        ids.len(),
        LETTERS,
        "one event for each, however often it is published"
    );
    assert!(
        answers
            .iter()
            .all(|event| event.verdict() == "usage.reverted")
    );
    worker.stop().await;
    let decided = env
        .count("SELECT count(*) FROM revertd.outcomes WHERE refusal IS NULL AND client = 'render'")
        .await;
    assert_eq!(decided, i64::try_from(LETTERS).expect("few"));
    for usage in usages {
        assert_eq!(env.reverts(usage).await.len(), 2, "both legs, once");
    }
    let noted = "SELECT count(DISTINCT usage_id) FROM revertd.intervention_letters";
    assert_eq!(env.count(noted).await, decided, "before it is done");
    let done = "SELECT count(*) FROM revertd.intervention_parts";
    let parts = env.count(done).await;
    assert!(parts >= 1, "{parts}");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_replay_killed_before_publishing_loses_nothing() {
    is_decided_once("letters-noted=1*off->return").await;
}

#[tokio::test]
async fn a_replay_killed_while_publishing_loses_nothing() {
    is_decided_once("half-published=return").await;
}

#[tokio::test]
async fn a_replay_killed_before_the_ack_loses_nothing() {
    is_decided_once("letters-published=1*off->return").await;
}

#[tokio::test]
async fn a_replay_killed_after_the_ack_loses_nothing() {
    is_decided_once("letters-settled=return").await;
}

#[tokio::test]
async fn a_killed_discard_removes_only_saved_dead_letters() {
    let (env, _) = env().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("saved");
    let path = file.to_str().expect("UTF-8");
    let discard = ["discard", "--all", "--yes", "--why", "x", "--save", path];
    kill(&env, "letters-published=return", &discard);
    eventually("all are back", async || {
        env.depth(&env.name("dead")).await as usize == LETTERS
    })
    .await;
    let saved = std::fs::read_to_string(&file).expect("saved");
    assert_eq!(saved.lines().count(), 200, "the first window");
    let noted = "SELECT count(*) FROM revertd.intervention_letters";
    assert_eq!(env.count(noted).await, 200);
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.intervention_parts")
            .await,
        0
    );
    env.teardown().await;
}
