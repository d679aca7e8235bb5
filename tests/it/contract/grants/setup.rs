//! An environment that requires grants, and requests of a client in it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::*;

/// An environment that asks for grants, its worker, and another login than the worker's.
pub async fn guarded() -> (TestEnv, WorkerProcess, Publisher) {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let worker = env.start_worker().await;
    let client = env.publisher().await;
    (env, worker, client)
}

pub fn grants(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let output = env
        .command(&[&["grants"], arguments].concat())
        .env("USER", "alice")
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().expect("no signal"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub fn grant(env: &TestEnv, action: &str, client: &str, org: &str) {
    let (status, _, stderr) = grants(env, &[action, client, org]);
    assert_eq!(status, 0, "{stderr}");
}

pub fn by(names: &Value, usage: Uuid) -> Request {
    let mut body = names.clone();
    body["usage_id"] = json!(usage);
    body["amount"] = json!(5);
    Request::json(&body).id(&Uuid::new_v4().to_string())
}

pub async fn ask(events: &mut Mailbox, client: &Publisher, request: &Request) -> Message {
    client.publish(request.clone()).await;
    events.answer(request).await
}
