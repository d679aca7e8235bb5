//! A replay that takes time: new dead letters during it, and an interrupt.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use super::setup::*;
use crate::support::dead_letters::DeadLetter;
use crate::support::*;

/// Starts a slow replay of `count` letters, and waits until the first is a request again.
async fn under_way(env: &TestEnv, count: usize, stderr: Stdio) -> Child {
    let customer = env.customer().await;
    let queued: Vec<_> = (0..count)
        .map(|_| DeadLetter::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    env.put_dead_letters(&queued).await;
    let mut command = command(
        env,
        &[
            "replay", "--all", "--yes", "--rate", "1", "--output", "json",
        ],
    );
    let child = command
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("runs");
    eventually("the first is replayed", async || {
        env.depth(&env.name("work")).await > 0
    })
    .await;
    child
}

#[tokio::test]
async fn dead_letters_arriving_during_a_replay_stay() {
    let env = env_without_worker().await;
    let child = under_way(&env, 3, Stdio::piped()).await;
    env.put_dead_letters(&[DeadLetter::of(b"{}").id("late")])
        .await;
    let output = child.wait_with_output().expect("ends");
    let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&done["replayed"], &done["interrupted"]),
        (&json!(3), &json!(false))
    );
    let left = listed(&env, &[]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["message_id"], "late");
    env.teardown().await;
}

#[tokio::test]
async fn an_interrupt_ends_a_replay_after_its_window() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    // Also if standard error cannot be written.
    for stderr in [Stdio::piped(), full.expect("opens").into()] {
        interrupted(stderr).await;
    }
}

async fn interrupted(stderr: Stdio) {
    let env = env_without_worker().await;
    let child = under_way(&env, 20, stderr).await;
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.expect("kill is there").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(done["interrupted"], true);
    let replayed = done["replayed"].as_u64().expect("a number");
    assert!((1..20).contains(&replayed), "{done}");
    assert_eq!(u64::from(env.depth(&env.name("work")).await), replayed);
    assert_eq!(listed(&env, &[]).len() as u64, 20 - replayed);
    env.teardown().await;
}
