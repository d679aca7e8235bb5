//! The retry ladder and dead letters, and the client that a request keeps there.

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::json;
use uuid::Uuid;

use crate::support::*;

fn long(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[tokio::test]
async fn a_revert_that_overtook_its_usage_is_retried() {
    let (env, _worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "2s,100ms")]).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = Uuid::new_v4();
    let request = Request::revert(customer.account, usage, 5);
    env.publish(&request).await;
    eventually("it waits", async || {
        env.depth(&env.name("retry.2s")).await == 1
    })
    .await;
    env.entry(
        usage,
        customer.account,
        "debit",
        "api.usage",
        20,
        &json!({}),
    )
    .await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    env.teardown().await;
}

#[tokio::test]
async fn an_unknown_usage_is_retried_then_refused() {
    let (env, mut worker) =
        TestEnv::with_worker_set(&[("RETRY__USAGE_NOT_FOUND_ATTEMPTS", "5")]).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = Uuid::new_v4();
    let request = Request::revert(customer.account, usage, 5);
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "USAGE_NOT_FOUND");
    assert_eq!(event.json()["type"], "usage.revert.rejected");
    // Sticky: the usage that comes later does not change the answer.
    env.entry(
        usage,
        customer.account,
        "debit",
        "api.usage",
        20,
        &json!({}),
    )
    .await;
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.body, event.body);
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(log.contains("retried=5 "), "{log}");
    assert!(log.contains("rejected=2 "), "{log}");
    env.teardown().await;
}

#[tokio::test]
async fn x_max_attempts_1_answers_at_once() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let request = || Request::revert(customer.account, Uuid::new_v4(), 5);
    for (request, retries) in [
        (request().header("x-max-attempts", long(1)), 0),
        (request().header("x-max-attempts", long(2)), 1),
        (request().header("x-max-attempts", long(0)), 3),
        (request().header("x-max-attempts", long(-1)), 3),
        (request().header("x-max-attempts", text("1")), 3),
        (request().header("x-attempts", long(2)), 1),
        (request().header("x-attempts", long(i64::MAX)), 3),
        (request().header("x-attempts", long(-7)), 3),
        (request().header("x-attempts", text("many")), 3),
        (
            request().header("x-attempts", AMQPValue::FieldArray(FieldArray::default())),
            3,
        ),
        (request().header("x-attempts", long(4_000_000_000)), 0),
    ] {
        let before = env.count("SELECT count(*) FROM revertd.outcomes").await;
        env.publish(&request).await;
        assert_eq!(
            events.answer(&request).await.verdict(),
            "USAGE_NOT_FOUND",
            "{retries}"
        );
        assert_eq!(
            env.count("SELECT count(*) FROM revertd.outcomes").await,
            before + 1
        );
    }
    assert!(worker.stop().await.success());
    assert!(worker.log().contains("retried=23 "), "{}", worker.log());
    env.teardown().await;
}

#[tokio::test]
async fn the_client_is_kept_on_the_ladder_and_in_replays() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, mut dead) = (env.events().await, env.dead_letters().await);
    let publisher = env.publisher().await;
    let customer = env.customer().await;

    // The ladder: the client is still the publisher when the outcome is stored.
    let request = Request::revert(customer.account, Uuid::new_v4(), 5).id("theirs");
    publisher.publish(request.clone()).await;
    assert_eq!(events.answer(&request).await.verdict(), "USAGE_NOT_FOUND");
    let client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'publisher'";
    assert_eq!(env.count(client).await, 1);

    // The same message id from another client is another request.
    let usage = env.usage(customer.account, 20).await;
    let ours = Request::revert(customer.account, usage, 5).id("theirs");
    env.publish(&ours).await;
    let applied = events.answer(&ours).await;
    assert_eq!(applied.verdict(), "usage.reverted");

    // The dead letter bears our user, and theirs in x-client.
    let rubbish = Request::raw("rubbish")
        .id("rubbish")
        .header("x-client", text("forged"));
    publisher.publish(rubbish.clone()).await;
    assert_eq!(events.answer(&rubbish).await.verdict(), "MALFORMED_REQUEST");
    let letter = dead.answer(&rubbish).await;
    assert_eq!(letter.text_header("x-client").as_deref(), Some("publisher"));

    // A request that is stored as theirs, replayed under our own user with x-client.
    let own = env.count("SELECT count(*) FROM revertd.outcomes").await;
    let worker_user = letter
        .properties
        .user_id()
        .as_ref()
        .expect("the worker's")
        .clone();
    let mut replayed = request.clone().header("x-client", text("publisher"));
    replayed.properties = replayed.properties.with_user_id(worker_user);
    env.publish(&replayed).await;
    let answer = events.answer(&replayed).await;
    assert_eq!(answer.verdict(), "USAGE_NOT_FOUND");
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes").await,
        own,
        "the stored outcome"
    );

    // The same header from another login is not trusted.
    let forged = ours.clone().header("x-client", text(""));
    publisher.publish(forged.clone()).await;
    let answer = events.answer(&forged).await;
    assert_eq!(
        answer.verdict(),
        "REQUEST_ID_REUSED",
        "it is the publisher's request of that id"
    );
    env.teardown().await;
}

#[tokio::test]
async fn expiration_cc_and_bcc_are_not_passed_on() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, mut dead) = (env.events().await, env.dead_letters().await);
    let customer = env.customer().await;
    let array = |name: &str| AMQPValue::FieldArray(FieldArray::from(vec![text(&env.name(name))]));
    let mut death = FieldTable::default();
    death
        .insert("queue".into(), text(&env.name("work")))
        .insert("reason".into(), text("expired"))
        .insert("count".into(), long(7))
        .insert("exchange".into(), text(""))
        .insert(
            "routing-keys".into(),
            AMQPValue::FieldArray(FieldArray::default()),
        );
    let deaths = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death)]));
    let forge = |request: Request| {
        let properties = request
            .properties
            .clone()
            .with_expiration("600000".into())
            .with_priority(9);
        Request {
            properties,
            ..request
        }
        .header("CC", array("dead"))
        .header("x-death", deaths.clone())
        .header("x-error-reason", text("forged"))
        .header("x-delivery-count", long(1000))
        .header("x-kept", text("kept"))
    };
    // Through every rung, although the broker would take the forged deaths for a cycle and drop it.
    let request = forge(Request::revert(customer.account, Uuid::new_v4(), 5));
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "USAGE_NOT_FOUND");
    let rubbish = forge(Request::raw("rubbish"));
    env.publish(&rubbish).await;
    assert_eq!(events.answer(&rubbish).await.verdict(), "MALFORMED_REQUEST");
    let letter = dead.answer(&rubbish).await;
    assert_eq!(letter.text_header("x-kept").as_deref(), Some("kept"));
    assert_eq!(
        letter.text_header("x-error-reason").as_deref(),
        Some("MALFORMED_REQUEST")
    );
    for header in ["CC", "x-death", "x-delivery-count"] {
        assert_eq!(letter.header(header), None, "{header}");
    }
    assert_eq!(*letter.properties.expiration(), None);
    assert_eq!(env.depth(&env.name("dead")).await, 0, "no copies");
    env.teardown().await;
}

#[tokio::test]
async fn a_failing_request_is_dead_lettered_alone() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let (mut events, mut dead) = (env.events().await, env.dead_letters().await);
    let customer = env.customer().await;
    // A constraint of the table's owner, which one usage violates.
    let bad = env.usage(customer.account, 666).await;
    env.sql(
        "ALTER TABLE billing_transactions ADD CONSTRAINT test_rule CHECK (type <> 'credit' OR \
            amount <> 666) NOT VALID",
    )
    .await;
    let bad = Request::revert(customer.account, bad, 666);
    let mut good = Vec::new();
    for index in 0..40 {
        let usage = env.usage(customer.account, 20).await;
        good.push(Request::revert(customer.account, usage, 20));
        env.publish(&good[index]).await;
        if index == 20 {
            env.publish(&bad).await;
        }
    }
    let mut worker = env.start_worker().await;
    for request in &good {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    let event = events.answer(&bad).await;
    assert_eq!(event.verdict(), "RETRIES_EXHAUSTED");
    assert_eq!(event.json()["type"], "usage.revert.failed");
    assert_eq!(event.json()["data"]["error"]["code"], 13);
    assert_eq!(event.routing_key, "error.unknown");
    let letter = dead.answer(&bad).await;
    assert_eq!(
        letter.text_header("x-error-reason").as_deref(),
        Some("RETRIES_EXHAUSTED")
    );
    assert_eq!(letter.header("x-attempts"), Some(long(4)), "three rungs");
    assert_eq!(letter.body, bad.body);
    // It has no outcome yet: replayed, it may still succeed.
    env.sql("ALTER TABLE billing_transactions DROP CONSTRAINT test_rule")
        .await;
    env.publish(&bad).await;
    assert_eq!(events.answer(&bad).await.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    assert!(
        worker.log().contains("retried=3 "),
        "the bad one alone: {}",
        worker.log()
    );
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_message_with_deeply_nested_headers_is_answered() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    raw::publish_with_nested_header(&env, 25_000).await;
    for _ in 0..3 {
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20);
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    }
    assert!(worker.stop().await.success(), "{}", worker.log());
    assert!(
        worker.log().contains("rejected=1 "),
        "it is answered: {}",
        worker.log()
    );
    env.teardown().await;
}

#[tokio::test]
async fn properties_that_are_not_utf8_lose_no_other_message() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut requests = Vec::new();
    for index in 0..300 {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 20));
        if index == 150 {
            raw::publish_with_message_id(&env, b"\xff\xfe").await;
        }
        env.publish(&requests[index]).await;
    }
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    // The broker removes it, since no client can read it.
    eventually("it is dead-lettered", async || {
        env.depth(&env.name("dead")).await == 1
    })
    .await;
    let usage = env.usage(customer.account, 20).await;
    let after = Request::revert(customer.account, usage, 20);
    env.publish(&after).await;
    assert_eq!(events.answer(&after).await.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    assert!(
        worker.log().contains("dead_lettered=0 "),
        "{}",
        worker.log()
    );
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
