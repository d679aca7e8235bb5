//! Runs `revertd dead-letters` and fills the dead-letter queue.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::dead_letters::DeadLetter;
use crate::support::raw::{RawConnection, short};
use crate::support::*;

/// Runs `revertd dead-letters`, without a terminal.
pub fn dead_letters(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let mut program = env.command(&[&["dead-letters"], arguments].concat());
    let output = program.env("USER", "alice").output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

pub fn command(env: &TestEnv, arguments: &[&str]) -> std::process::Command {
    let mut command = env.command(&[&["dead-letters"], arguments].concat()).bare();
    command.env("USER", "alice");
    command
}

/// Runs `list` and reads its JSON. It must succeed.
pub fn listed(env: &TestEnv, arguments: &[&str]) -> Vec<Value> {
    let (status, stdout, stderr) =
        dead_letters(env, &[&["list", "--output", "json"], arguments].concat());
    assert_eq!(status, 0, "{stderr}");
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

pub fn acted(env: &TestEnv, arguments: &[&str]) -> Value {
    let (status, stdout, stderr) =
        dead_letters(env, &[arguments, &["--yes", "--output", "json"]].concat());
    assert_eq!(status, 0, "{arguments:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).expect("JSON")
}

/// An environment with declared queues and no running worker.
pub async fn env_without_worker() -> TestEnv {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    env
}

pub async fn unreadable(env: &TestEnv, message_id: &[u8]) {
    let mut raw = RawConnection::open(&env.servers.amqp).await;
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, message_id);
    let queue = env.name("dead");
    raw.publish("", queue.as_bytes(), &properties, b"{}").await;
    raw.confirmed().await;
}

/// Dead letters of every kind, and their number.
pub async fn mixed(env: &TestEnv) -> (Uuid, Uuid, usize) {
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let body = json!({"orgId": customer.org, "usageId": usage, "amount": "5"});
    env.put_dead_letters(&[
        DeadLetter::new(customer.account, usage, 5).id("one"),
        DeadLetter::of(body.to_string().as_bytes())
            .id("two")
            .age(7200),
        DeadLetter::of(b"rubbish")
            .id("three")
            .reason("MALFORMED_REQUEST")
            .client("other"),
    ])
    .await;
    env.put_broker_dead_letter("expired", "four", &body, None)
        .await;
    env.put_broker_dead_letter("delivery_limit", "five", &body, Some(&env.login()))
        .await;
    unreadable(env, b"\xff\xfe").await;
    (customer.org, usage, 6)
}
