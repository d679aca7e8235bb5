//! Groups: many requests in one message, each decided like any other, or all together.

use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use uuid::Uuid;

use super::grants::grant;
use crate::support::*;

/// A group with that id; the account is given once, for all requests.
fn group(id: &str, account: Uuid, atomic: bool, requests: &[Value]) -> Request {
    let body = json!({"billing_id": account, "atomic": atomic, "requests": requests});
    Request::json(&body).id(id)
}

fn revert(usage: Uuid, amount: i64) -> Value {
    json!({"usage_id": usage, "amount": amount})
}

/// New usages of 20.
async fn usages(env: &TestEnv, account: Uuid, count: usize) -> Vec<Uuid> {
    let mut usages = Vec::with_capacity(count);
    for _ in 0..count {
        usages.push(env.usage(account, 20).await);
    }
    usages
}

/// The events of a batch.
fn events_of(message: &Message) -> Vec<Value> {
    let Value::Array(events) = message.json() else {
        panic!("no batch: {message:?}");
    };
    events
}

fn verdict(event: &Value) -> String {
    let reason = event["data"]["error"]["details"][0]["reason"].as_str();
    let verdict = reason.or(event["type"].as_str()).expect("a type");
    verdict.to_owned()
}

/// The verdicts by request id.
fn verdicts(events: &[Value]) -> Vec<(String, String)> {
    let id = |event: &Value| {
        event["data"]["request_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let mut told: Vec<_> = events
        .iter()
        .map(|event| (id(event), verdict(event)))
        .collect();
    told.sort();
    told
}

fn expected(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter()
        .map(|(id, verdict)| ((*id).into(), (*verdict).into()))
        .collect()
}

/// The events of all batches that answer a group of so many requests.
async fn answers(events: &mut Mailbox, request: &Request, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(events_of(&events.answer(request).await));
    }
    assert_eq!(all.len(), count);
    all
}

#[tokio::test]
async fn events_come_in_a_batch_for_each_routing_key() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = usages(&env, customer.account, 3).await;
    let requests = [
        revert(usages[0], 5),
        revert(usages[1], 21),
        json!({"usage_id": usages[2], "amount": "7", "reason": "late", "request_id": "own"}),
    ];
    let request = group("job", customer.account, false, &requests);
    env.publish(&request).await;
    let first = events.answer(&request).await;
    let second = events.answer(&request).await;
    let (reverted, refused) = if first.routing_key.starts_with("result.") {
        (first, second)
    } else {
        (second, first)
    };
    for (message, prefix, count) in [(&reverted, "result", 2), (&refused, "error", 1)] {
        assert_eq!(message.routing_key, format!("{prefix}.{}", customer.org));
        let content_type = message.properties.content_type().as_ref().expect("a type");
        assert_eq!(content_type.as_str(), "application/cloudevents-batch+json");
        assert_eq!(message.text_header("x-group").as_deref(), Some("job"));
        let number = |name| message.header(name).expect("a header");
        assert_eq!(number("x-group-size"), AMQPValue::LongLongInt(3));
        assert_eq!(number("x-group-count"), AMQPValue::LongLongInt(count));
    }
    let reverted_ids = expected(&[("job/0", "usage.reverted"), ("own", "usage.reverted")]);
    assert_eq!(verdicts(&events_of(&reverted)), reverted_ids);
    let refused_ids = expected(&[("job/1", "AMOUNT_EXCEEDS_USAGE")]);
    assert_eq!(verdicts(&events_of(&refused)), refused_ids);
    // Sent alone, a request has the same outcome, and its event has the same bytes.
    let alone = json!({"billing_id": customer.account, "usage_id": usages[0], "amount": 5});
    let alone = Request::json(&alone).id("job/0");
    env.publish(&alone).await;
    let event = events.answer(&alone).await;
    let text = String::from_utf8(event.body).expect("UTF-8");
    let batch = String::from_utf8(reverted.body).expect("UTF-8");
    assert!(batch.starts_with(&format!("[{text},")), "{batch} {text}");
    // Sent again, the group has the same answers.
    env.publish(&request).await;
    let again = answers(&mut events, &request, 3).await;
    assert_eq!(again.len(), 3);
    for usage in usages {
        assert!(env.reverts(usage).await.len() <= 2);
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn each_event_is_a_message_if_the_group_asks() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = usages(&env, customer.account, 2).await;
    let requests = usages.iter().map(|usage| revert(*usage, 5));
    let requests: Vec<_> = requests.collect();
    let body = json!({"billing_id": customer.account, "replies": "each", "requests": requests});
    let request = Request::json(&body).id("job");
    env.publish(&request).await;
    for _ in 0..2 {
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), "usage.reverted");
        let count = event.header("x-group-count");
        assert_eq!(count, Some(AMQPValue::LongLongInt(1)));
    }
    env.teardown().await;
}

#[tokio::test]
async fn an_atomic_group_is_reverted_or_refused_whole() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = usages(&env, customer.account, 3).await;
    let refused = [
        revert(usages[0], 5),
        revert(usages[1], 21),
        revert(usages[2], 20),
    ];
    let request = group("bad", customer.account, true, &refused);
    env.publish(&request).await;
    let told = answers(&mut events, &request, 3).await;
    let expected_told = expected(&[
        ("bad/0", "GROUP_REFUSED"),
        ("bad/1", "AMOUNT_EXCEEDS_USAGE"),
        ("bad/2", "GROUP_REFUSED"),
    ]);
    assert_eq!(verdicts(&told), expected_told);
    let details = told
        .iter()
        .map(|event| &event["data"]["error"]["details"][0]);
    let metadata = json!({"index": "1", "reason": "AMOUNT_EXCEEDS_USAGE"});
    let named = details
        .filter(|detail| detail["metadata"] == metadata)
        .count();
    assert_eq!(named, 2);
    for usage in &usages {
        assert!(env.reverts(*usage).await.is_empty());
    }
    // The refusal is stored: alone, the request has the same answer.
    let alone = json!({"billing_id": customer.account, "usage_id": usages[2], "amount": 20});
    let alone = Request::json(&alone).id("bad/2");
    env.publish(&alone).await;
    assert_eq!(events.answer(&alone).await.verdict(), "GROUP_REFUSED");
    let good = [
        revert(usages[0], 5),
        revert(usages[1], 20),
        revert(usages[2], 20),
    ];
    let request = group("good", customer.account, true, &good);
    env.publish(&request).await;
    let told = answers(&mut events, &request, 3).await;
    assert!(told.iter().all(|event| verdict(event) == "usage.reverted"));
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_request_that_waits_for_its_usage_waits_alone() {
    let (env, _worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "2s,100ms")]).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (usage, late) = (env.usage(customer.account, 20).await, Uuid::new_v4());
    let requests = [revert(late, 5), revert(usage, 5)];
    let request = group("job", customer.account, false, &requests);
    env.publish(&request).await;
    let first = events.answer(&request).await;
    let told = expected(&[("job/1", "usage.reverted")]);
    assert_eq!(verdicts(&events_of(&first)), told);
    let (source, none) = ("api.usage", json!({}));
    env.entry(late, customer.account, "debit", source, 20, &none)
        .await;
    let second = events.answer(&request).await;
    let event = second.json();
    assert_eq!(event["data"]["request_id"], "job/0");
    assert_eq!(second.verdict(), "usage.reverted");
    env.teardown().await;
}

#[tokio::test]
async fn an_atomic_group_waits_as_a_whole() {
    let (env, _worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "2s,100ms")]).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (usage, late) = (env.usage(customer.account, 20).await, Uuid::new_v4());
    let requests = [revert(usage, 5), revert(late, 5)];
    let request = group("job", customer.account, true, &requests);
    env.publish(&request).await;
    let rung = env.name("retry.2s");
    eventually("the group waits", async || env.depth(&rung).await == 1).await;
    assert!(env.reverts(usage).await.is_empty());
    let (source, none) = ("api.usage", json!({}));
    env.entry(late, customer.account, "debit", source, 20, &none)
        .await;
    let told = answers(&mut events, &request, 2).await;
    assert!(told.iter().all(|event| verdict(event) == "usage.reverted"));
    // Without its usage, it is refused in the end.
    let requests = [revert(usage, 5), revert(Uuid::new_v4(), 5)];
    let request = group("never", customer.account, true, &requests).single_attempt();
    env.publish(&request).await;
    let told = answers(&mut events, &request, 2).await;
    let expected_told = [
        ("never/0", "ALREADY_REVERTED"),
        ("never/1", "GROUP_REFUSED"),
    ];
    assert_eq!(verdicts(&told), expected(&expected_told));
    env.teardown().await;
}

#[tokio::test]
async fn a_malformed_group_is_one_dead_letter() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut letters = env.dead_letters().await;
    let usage = env.usage(customer.account, 20).await;
    let many = vec![revert(usage, 1); 1001];
    let twice = json!({"usage_id": usage, "amount": 1, "request_id": "same"});
    let nested = json!({"requests": [revert(usage, 1)]});
    let bodies = [
        json!({"requests": []}),
        json!({"billing_id": customer.account, "requests": many}),
        json!({"billing_id": customer.account, "requests": [twice, twice]}),
        json!({"billing_id": customer.account, "requests": [nested]}),
        json!({"billing_id": "x", "requests": [revert(usage, 1)]}),
    ];
    for body in bodies {
        let request = Request::json(&body).id("job");
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), "MALFORMED_REQUEST");
        assert_eq!(event.json()["data"]["request_id"], "job");
        letters.answer(&request).await;
    }
    let without_id = Request::json(&json!({"requests": [revert(usage, 1)]}));
    env.publish(&without_id).await;
    let event = events.answer(&without_id).await;
    assert_eq!(event.verdict(), "MALFORMED_REQUEST");
    letters.answer(&without_id).await;
    assert!(env.reverts(usage).await.is_empty());
    env.teardown().await;
}

#[tokio::test]
async fn an_invalid_request_of_a_group_is_told_alone() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let mut requests = vec![revert(usage, 5)];
    requests.push(json!({"usage_id": "no UUID", "amount": 0}));
    let request = group("job", customer.account, false, &requests);
    env.publish(&request).await;
    let told = answers(&mut events, &request, 2).await;
    let expected_told = [("job/0", "usage.reverted"), ("job/1", "INVALID_FIELD")];
    assert_eq!(verdicts(&told), expected(&expected_told));
    let invalid = told.iter().find(|event| verdict(event) == "INVALID_FIELD");
    let details = &invalid.expect("told")["data"]["error"]["details"];
    assert_eq!(details[0]["metadata"]["index"], "1");
    // In an atomic group, it refuses the others.
    let usage = env.usage(customer.account, 20).await;
    requests[0] = revert(usage, 5);
    let request = group("atomic", customer.account, true, &requests);
    env.publish(&request).await;
    let told = answers(&mut events, &request, 2).await;
    let expected_told = [("atomic/0", "GROUP_REFUSED"), ("atomic/1", "INVALID_FIELD")];
    assert_eq!(verdicts(&told), expected(&expected_told));
    assert!(env.reverts(usage).await.is_empty());
    env.teardown().await;
}

#[tokio::test]
async fn one_request_in_two_groups_is_one_request() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = usages(&env, customer.account, 40).await;
    let named = |index: usize| {
        let id = format!("r{index}");
        json!({"usage_id": usages[index], "amount": 5, "request_id": id})
    };
    let groups: Vec<_> = (0..39)
        .map(|n| {
            let requests = [named(n), named(n + 1)];
            group(&format!("g{n}"), customer.account, n % 2 == 0, &requests)
        })
        .collect();
    for request in &groups {
        env.publish(request).await;
    }
    let mut told = std::collections::HashMap::<String, Value>::new();
    for request in &groups {
        for event in answers(&mut events, request, 2).await {
            assert_eq!(verdict(&event), "usage.reverted");
            let id = event["data"]["request_id"].to_string();
            let first = told.entry(id).or_insert_with(|| event.clone());
            assert_eq!(*first, event, "one request has one event");
        }
    }
    assert_eq!(told.len(), 40);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn an_atomic_group_over_two_orgs_needs_both_grants() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let _worker = env.start_worker().await;
    let (mut events, publisher) = (env.events().await, env.publisher().await);
    let (one, two) = (env.customer().await, env.customer().await);
    let usages = [
        env.usage(one.account, 20).await,
        env.usage(two.account, 20).await,
    ];
    grant(&env, "add", &publisher.user, &one.org.to_string());
    let requests = [
        json!({"billing_id": one.account, "usage_id": usages[0], "amount": 5}),
        json!({"billing_id": two.account, "usage_id": usages[1], "amount": 5}),
    ];
    let body = json!({"atomic": true, "requests": requests});
    let request = Request::json(&body).id("job");
    publisher.publish(request.clone()).await;
    let told = answers(&mut events, &request, 2).await;
    let expected_told = [("job/0", "GROUP_REFUSED"), ("job/1", "ORG_NOT_GRANTED")];
    assert_eq!(verdicts(&told), expected(&expected_told));
    for usage in usages {
        assert!(env.reverts(usage).await.is_empty());
    }
    env.teardown().await;
}

#[tokio::test]
async fn a_group_sent_twice_at_once_has_one_answer() {
    let env = TestEnv::in_order().await;
    let mut worker = env.start_worker().await;
    assert!(worker.stop().await.success());
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = usages(&env, customer.account, 3).await;
    let requests = [
        revert(usages[0], 5),
        revert(usages[1], 21),
        revert(usages[2], 20),
    ];
    let request = group("job", customer.account, true, &requests);
    for _ in 0..2 {
        env.publish(&request).await;
    }
    // Both copies are in one batch.
    let _worker = env.start_worker().await;
    let first = answers(&mut events, &request, 3).await;
    let second = answers(&mut events, &request, 3).await;
    assert_eq!(verdicts(&first), verdicts(&second));
    let expected_told = [
        ("job/0", "GROUP_REFUSED"),
        ("job/1", "AMOUNT_EXCEEDS_USAGE"),
        ("job/2", "GROUP_REFUSED"),
    ];
    assert_eq!(verdicts(&first), expected(&expected_told));
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

/// A queue for events of that routing key that refuses every one.
async fn refusing_queue(env: &TestEnv, key: &str) -> String {
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), AMQPValue::LongInt(0));
    let overflow = AMQPValue::LongString("reject-publish".into());
    limits.insert("x-overflow".into(), overflow);
    let options = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let declared = env.channel.queue_declare("".into(), options, limits).await;
    let queue = declared.expect("declared").name().to_string();
    let (exchange, none) = (env.name("replies"), QueueBindOptions { nowait: false });
    let bound = env.channel.queue_bind(
        queue.as_str().into(),
        exchange.as_str().into(),
        key.into(),
        none,
        FieldTable::default(),
    );
    bound.await.expect("bound");
    queue
}

#[tokio::test]
async fn a_request_refused_in_a_group_is_never_reverted() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "200ms,300ms")]).await;
    let customer = env.customer().await;
    let usages = usages(&env, customer.account, 2).await;
    let mut events = env.events().await;
    let refusing = refusing_queue(&env, "error.#").await;
    // Sent alone, the second request would be valid: an unknown field is ignored.
    let requests = [
        revert(usages[0], 5),
        json!({"usage_id": usages[1], "amount": 5, "request_id": 17}),
    ];
    let request = group("job", customer.account, true, &requests);
    env.publish(&request).await;
    worker.logged("a queue refused messages").await;
    let delete = QueueDeleteOptions::default();
    let deleted = env.channel.queue_delete(refusing.as_str().into(), delete);
    deleted.await.expect("deleted");
    // revertd's own queue has the first answer; the second comes after the wait.
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let events = events_of_any(&events.answer(&request).await);
        let of_second = |event: &Value| event["data"]["request_id"] == "job/1";
        answers.extend(events.into_iter().filter(of_second));
    }
    for answer in answers {
        assert_eq!(verdict(&answer), "INVALID_FIELD");
        assert_eq!(
            answer["data"]["error"]["details"][0]["metadata"]["index"],
            "1"
        );
    }
    assert!(worker.stop().await.success());
    for usage in usages {
        assert!(env.reverts(usage).await.is_empty());
    }
    env.teardown().await;
}

/// The events of a message, which is one of them or a batch.
fn events_of_any(message: &Message) -> Vec<Value> {
    match message.json() {
        Value::Array(events) => events,
        event => vec![event],
    }
}
