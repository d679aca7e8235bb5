//! Which login's `x-client` is trusted.

use lapin::types::{AMQPValue, FieldArray};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operator::dead_letters::setup::dead_letters;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

const CLIENT: &str = "somebody";

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A request of another client, as a worker under the publisher's login would put it on a rung.
fn on_a_rung(account: Uuid, usage: Uuid) -> Request {
    Request::revert(account, usage, 5)
        .header("x-client", text(CLIENT))
        .header("x-attempts", AMQPValue::LongLongInt(2))
        .header("x-first-attempt-at", text("2026-01-02T03:04:05Z"))
}

fn grant(env: &TestEnv, client: &str) {
    let granted = env.command(&["grants", "add", client, "*"]).output();
    assert!(granted.expect("runs").status.success());
}

/// Runs a command that must succeed and print JSON.
fn shown(env: &TestEnv, arguments: &[&str]) -> Value {
    let output = env
        .command(&[arguments, &["--output", "json"]].concat())
        .output()
        .expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

#[tokio::test]
async fn a_request_of_a_former_login_waits_for_trust() {
    for (mode, policy) in [("grants", "once"), ("broker", "cumulative")] {
        let mut env = TestEnv::new().await;
        env.set("AUTHORIZATION__MODE", mode);
        env.set("REVERT__POLICY", policy);
        env.set(LISTEN.0, LISTEN.1);
        grant(&env, CLIENT);
        grant(&env, &env.login());
        let mut worker = env.start_worker().await;
        let (mut events, former) = (env.events().await, env.publisher().await);
        let customer = env.customer().await;
        let usage = env.usage(customer.account, 20).await;
        let waiting = on_a_rung(customer.account, usage);
        former.publish(waiting.clone()).await;
        let telemetry = Telemetry::of(&mut worker).await;
        eventually("it came back from the rung", async || {
            telemetry
                .metrics()
                .await
                .sum("revertd_untrusted_waits_total", &[])
                >= 3.0
        })
        .await;
        // Other requests do not wait for it.
        let other = Request::revert(customer.account, env.usage(customer.account, 20).await, 5);
        let properties = other.properties.clone();
        let properties = properties.with_user_id(env.login().as_str().into());
        let other = Request {
            properties,
            ..other
        };
        env.publish(&other).await;
        assert_eq!(events.answer(&other).await.verdict(), "usage.reverted");
        assert!(env.reverts(usage).await.is_empty());
        assert!(worker.stop().await.success());
        let log = worker.log();
        assert_eq!(log.matches("amqp.trusted_users").count(), 1, "{log}");

        env.set("AMQP__TRUSTED_USERS", &format!("nobody,{}", former.user));
        let _worker = env.start_worker().await;
        // The first event of it at all, and its own client's.
        let event = events.answer(&waiting).await;
        assert_eq!(event.verdict(), "usage.reverted");
        let of_client = format!(
            "SELECT count(*) FROM revertd.outcomes WHERE usage_id = '{usage}' AND client = \
                '{CLIENT}'"
        );
        assert_eq!(env.count(&of_client).await, 1);
        former.publish(waiting.clone()).await;
        assert_eq!(events.answer(&waiting).await.body, event.body);
        assert_eq!(env.reverts(usage).await.len(), 2, "both legs of one revert");
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_forged_x_client_is_never_trusted_later() {
    let (mut env, mut worker) = TestEnv::with_worker_set(&[(LISTEN.0, LISTEN.1)]).await;
    let (publisher, mut events) = (env.publisher().await, env.events().await);
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let forged = on_a_rung(customer.account, usage);
    publisher.publish(forged.clone()).await;
    let telemetry = Telemetry::of(&mut worker).await;
    eventually("the worker passed it on", async || {
        telemetry
            .metrics()
            .await
            .sum("revertd_untrusted_waits_total", &[])
            >= 3.0
    })
    .await;
    // The claims of a worker's own login are trusted, except those that it only passed on.
    assert!(worker.stop().await.success());
    let mut rung = env.mailbox(&env.name("work")).await;
    let passed_on = rung.answer(&forged).await;
    drop(rung);
    assert_eq!(
        passed_on.text_header("x-client"),
        Some(publisher.user.clone())
    );
    let names = AMQPValue::FieldArray(FieldArray::from(vec![text(CLIENT)]));
    assert_eq!(passed_on.header("x-client-claimed"), Some(names));
    assert_eq!(
        passed_on.header("x-attempts"),
        Some(AMQPValue::LongLongInt(2))
    );
    assert_eq!(
        passed_on.text_header("x-first-attempt-at").as_deref(),
        Some("2026-01-02T03:04:05Z")
    );
    // At the end it is a dead letter, which says by whose word it is whose.
    let passed_on = Request {
        body: passed_on.body,
        properties: passed_on.properties,
    };
    let old = passed_on.header("x-untrusted-since", text("2026-01-02T03:04:05Z"));
    let mut worker = env.start_worker().await;
    env.publish(&old).await;
    let event = events.answer(&forged).await;
    assert_eq!(event.verdict(), "RETRIES_EXHAUSTED");
    assert!(!String::from_utf8_lossy(&event.body).contains(CLIENT));
    assert!(worker.stop().await.success());
    assert!(env.reverts(usage).await.is_empty());
    let listed = shown(&env, &["dead-letters", "list"]);
    assert_eq!(
        (
            &listed["client"],
            &listed["client_claimed_by"],
            &listed["attempts"]
        ),
        (&json!(CLIENT), &json!(publisher.user), &json!(2))
    );
    let id = listed["id"].as_str().expect("an id").to_owned();
    let (_, stdout, _) = dead_letters(&env, &["show", &id]);
    assert!(
        stdout.contains("only source of the client's name"),
        "{stdout}"
    );
    let replayed = shown(&env, &["dead-letters", "replay", "--all", "--yes"]);
    assert_eq!(replayed["left"], json!({"of_another_login": 1}));
    // Once it is trusted, it can be replayed, for its client.
    env.set("AMQP__TRUSTED_USERS", &publisher.user);
    let replayed = shown(&env, &["dead-letters", "replay", "--all", "--yes"]);
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    let _worker = env.start_worker().await;
    assert_eq!(events.answer(&forged).await.verdict(), "usage.reverted");
    let of_client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'somebody'";
    assert_eq!(env.count(of_client).await, 1);
    env.teardown().await;
}

#[tokio::test]
async fn a_replay_by_an_untrusted_operator_waits() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let (operator, mut events) = (env.publisher().await, env.events().await);
    assert!(worker.stop().await.success());
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let replayed = Request::revert(customer.account, usage, 5)
        .header("x-client", text(CLIENT))
        .header("x-replayed", AMQPValue::Boolean(true));
    env.set("RETRY__DELAYS", "100ms,1h,200ms");
    let mut worker = env.start_worker().await;
    operator.publish(replayed.clone()).await;
    let rung = env.name("retry.1h");
    eventually("it waits on the longest rung", async || {
        env.depth(&rung).await == 1
    })
    .await;
    let id = replayed
        .properties
        .message_id()
        .clone()
        .expect("it has one");
    let stdout = shown(&env, &["status", "--request", id.as_str()]);
    let waits = &stdout["waiting"][0];
    assert_eq!(
        (
            &waits["queue"],
            &waits["client"],
            &waits["client_claimed_by"]
        ),
        (&json!(rung), &json!(CLIENT), &json!(operator.user))
    );
    assert_eq!(waits["attempts"], 0);
    assert!(worker.stop().await.success());
    env.set("AMQP__TRUSTED_USERS", &operator.user);
    let mut worker = env.start_worker().await;
    operator.publish(replayed.clone()).await;
    assert_eq!(events.answer(&replayed).await.verdict(), "usage.reverted");
    let of_client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'somebody'";
    assert_eq!(env.count(of_client).await, 1);
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn an_expired_request_belongs_to_its_publisher() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (publisher, mut events) = (env.publisher().await, env.events().await);
    assert!(worker.stop().await.success());
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5).header("x-client", text("forged"));
    let properties = request.properties.clone().with_expiration("1".into());
    let expiring = Request {
        properties,
        ..request.clone()
    };
    publisher.publish(expiring).await;
    eventually("it expired", async || {
        env.depth(&env.name("dead")).await == 1
    })
    .await;
    let replayed = shown(&env, &["dead-letters", "replay", "--all", "--yes"]);
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    let _worker = env.start_worker().await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    let client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'publisher'";
    assert_eq!(env.count(client).await, 1);
    env.teardown().await;
}
