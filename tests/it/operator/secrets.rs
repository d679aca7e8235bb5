//! No process logs a secret or a body, with any log filter. `tests/support/no-secrets` searches
//! the output of all tests of a run; this test runs a worker that logs everything.

use serde_json::json;

use crate::support::*;

/// A text in bodies: as the name of an unknown field, as a value, and outside of JSON.
const PAYLOAD: &str = "zq81-the-words-of-a-body";

#[tokio::test]
async fn no_log_line_contains_a_secret_or_a_body() {
    logs::payload(PAYLOAD);
    let env = TestEnv::new().await;
    let mut command = env.command(&["worker"]);
    command.env("RUST_LOG", "trace");
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let body = |id: &str, account| {
        json!({"usage_id": id, "amount": 5, "billing_id": account,
        "reason": PAYLOAD, PAYLOAD: 1})
    };
    let (usage, missing) = (usage.to_string(), uuid::Uuid::new_v4());
    let (good, invalid) = (
        body(&usage, customer.account),
        body(PAYLOAD, customer.account),
    );
    let requests = [
        Request::json(&good).id("one"),
        Request::json(&good).id("two"),
        Request::json(&body(&usage, missing)),
        Request::json(&body(&missing.to_string(), customer.account)),
        Request::json(&invalid),
        Request::raw(format!("{PAYLOAD}{{")),
        Request::raw(format!("{{\"{PAYLOAD}\": tru}}")),
        Request::json(&good).reply_to("replies.nobody"),
    ];
    for request in &requests {
        env.publish(request).await;
        events.answer(request).await;
    }
    assert!(worker.stop().await.success());
    let log = worker.log();
    let lines = |level: &str| log.lines().filter(|line| line.contains(level)).count();
    assert!(
        lines("TRACE") > 0 && lines("DEBUG") > 0,
        "all of it is logged"
    );
    for address in [&env.servers.database, &env.servers.amqp] {
        let url = url::Url::parse(address).expect("a URL");
        let password = logs::decoded(url.password().expect("a password"));
        assert!(password == url.username() || !log.contains(&password));
    }
    assert!(!log.contains(PAYLOAD));
    env.teardown().await;
}
