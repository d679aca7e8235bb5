//! A group over HTTP: a result for each request, or an answer that the group was not accepted.

use std::net::Ipv4Addr;

use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use uuid::Uuid;

use super::fairness::other_client;
use crate::support::http::*;
use crate::support::*;

/// Request id and reason of each result; no reason for a success.
fn results(response: &HttpResponse) -> Vec<(String, Option<String>)> {
    assert_eq!(response.status, 200, "{}", response.body);
    let json = response.json();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let result = |result: &Value| {
        let id = text(&result["request_id"]).expect("an id");
        (id, text(&result["details"][0]["reason"]))
    };
    let results = json["results"].as_array().expect("results");
    results.iter().map(result).collect()
}

fn expected(results: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    let owned = |(id, reason): &(&str, &str)| {
        let reason = (!reason.is_empty()).then(|| (*reason).to_owned());
        ((*id).to_owned(), reason)
    };
    results.iter().map(owned).collect()
}

#[tokio::test]
async fn results_have_the_order_of_the_requests() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (customer, other) = (env.customer().await, env.customer().await);
    let gateway = env.start_gateway().await;
    let done = env.usage(customer.account, 20).await;
    let first = HttpRequest::revert(customer.account, done, 20);
    assert_eq!(gateway.send(&first).await.status, 200);
    let usage = env.usage(customer.account, 20).await;
    let elsewhere = env.usage(other.account, 20).await;
    let group = |more: Value| {
        let mut group = json!({"billing_id": customer.account, "requests": [
            {"usage_id": done, "amount": 1, "request_id": "done"},
            {"usage_id": usage, "amount": "5"},
            {"usage_id": Uuid::nil(), "amount": 5, "request_id": "unknown"},
            {"usage_id": elsewhere, "amount": 5, "org_id": other.org},
            {"usage_id": "x", "amount": 0},
            {"usage_id": usage, "amount": 21, "org_id": Uuid::nil()},
        ]});
        for (name, value) in more.as_object().expect("an object") {
            group[name] = value.clone();
        }
        HttpRequest::group(group.to_string())
    };
    let call = group(json!({})).key("k");
    let response = gateway.send(&call).await;
    let found = results(&response);
    let wanted = expected(&[
        ("done", "ALREADY_REVERTED"),
        ("k/1", ""),
        ("unknown", "USAGE_NOT_FOUND"),
        ("k/3", ""),
        ("k/4", "INVALID_FIELD"),
        ("k/5", "BILLING_ACCOUNT_NOT_FOUND"),
    ]);
    assert_eq!(found, wanted);
    assert_eq!(response.header("x-request-id"), Some("k"));
    assert_eq!(response.json()["results"][0]["code"], 6);
    let violations = &response.json()["results"][4]["details"][1]["fieldViolations"];
    assert_eq!(violations.as_array().map(Vec::len), Some(2));

    // The same key gives the same results, whatever the form of the events.
    assert_eq!(gateway.send(&call).await.body, response.body);
    let each = group(json!({"replies": "each"})).key("k");
    assert_eq!(gateway.send(&each).await.body, response.body);
    // Without a key, each call has an id of its own.
    let fresh = gateway.send(&group(json!({}))).await;
    let id = fresh.header("x-request-id").expect("it has one").to_owned();
    let second = (format!("{id}/1"), Some("ALREADY_REVERTED".to_owned()));
    assert_eq!(results(&fresh)[1], second);
    // A request of the group is the same request as alone.
    let alone = HttpRequest::revert(customer.account, usage, 5).key("k/1");
    assert_eq!(gateway.send(&alone).await.status, 200);
    assert_eq!(env.entries(usage).await + env.entries(elsewhere).await, 2);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_refused_request_refuses_its_atomic_group() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let (one, two) = (
        env.usage(customer.account, 20).await,
        env.usage(customer.account, 20).await,
    );
    let group = |amount: i64| {
        let requests = json!([{"usage_id": one, "amount": 5}, {"usage_id": two, "amount": amount}]);
        let group = json!({"atomic": true, "billing_id": customer.account, "requests": requests});
        HttpRequest::group(group.to_string())
    };
    let response = gateway.send(&group(21).key("a")).await;
    let wanted = expected(&[("a/0", "GROUP_REFUSED"), ("a/1", "AMOUNT_EXCEEDS_USAGE")]);
    assert_eq!(results(&response), wanted);
    let result = &response.json()["results"][0];
    assert_eq!(result["code"], 10);
    let metadata = json!({"index": "1", "reason": "AMOUNT_EXCEEDS_USAGE"});
    assert_eq!(result["details"][0]["metadata"], metadata);
    assert_eq!(env.entries(one).await, 0);
    let response = gateway.send(&group(20).key("b")).await;
    assert_eq!(results(&response), expected(&[("b/0", ""), ("b/1", "")]));
    assert_eq!(env.entries(one).await + env.entries(two).await, 2);
    env.teardown().await;
}

#[tokio::test]
async fn a_malformed_group_is_refused_unpublished() {
    let (env, mut worker) = TestEnv::with_worker().await;
    assert!(worker.stop().await.success());
    let gateway = env.start_gateway().await;
    let request = json!({"usage_id": Uuid::nil(), "amount": 1, "org_id": Uuid::nil()});
    let with_id = json!({"usage_id": Uuid::nil(), "amount": 1, "request_id": "a"});
    let group = |requests: Value| HttpRequest::group(json!({"requests": requests}).to_string());
    let long = group(json!([request])).key(&"k".repeat(255));
    let large = vec![b' '; 1024 * 1024 + 1];
    let single = HttpRequest::post(json!({"requests": [request]}).to_string());
    for (call, status, reason) in [
        (HttpRequest::group("rubbish"), 400, "MALFORMED_REQUEST"),
        (
            HttpRequest::group(request.to_string()),
            400,
            "MALFORMED_REQUEST",
        ),
        (group(Value::Null), 400, "MALFORMED_REQUEST"),
        (group(json!([])), 400, "MALFORMED_REQUEST"),
        (
            group(json!([{"requests": [request]}])),
            400,
            "MALFORMED_REQUEST",
        ),
        (group(json!([with_id, with_id])), 400, "MALFORMED_REQUEST"),
        (group(json!(vec![&request; 1001])), 400, "MALFORMED_REQUEST"),
        (long, 400, "MALFORMED_REQUEST"),
        (group(json!([request])).key("é"), 400, "INVALID_FIELD"),
        (HttpRequest::group(large), 413, "BODY_TOO_LARGE"),
        // A group at the path of single requests, valid or not.
        (single, 400, "MALFORMED_REQUEST"),
        (
            HttpRequest::post(r#"{"requests": 5}"#),
            400,
            "MALFORMED_REQUEST",
        ),
    ] {
        let start = String::from_utf8_lossy(&call.body[..call.body.len().min(60)]).into_owned();
        let response = gateway.send(&call).await;
        assert_eq!(response.verdict(), (status, reason.into()), "{start}");
    }
    for path in [format!("{BATCH_PATH}/"), format!("{PATH}:other")] {
        let call = HttpRequest {
            path,
            ..group(json!([request]))
        };
        assert_eq!(
            gateway.send(&call).await.verdict(),
            (404, "PATH_NOT_FOUND".into())
        );
    }
    assert_eq!(env.depth(&env.name("work")).await, 0);
    env.teardown().await;
}

#[tokio::test]
async fn a_group_of_exactly_1_mib_is_answered() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let mut requests = Vec::new();
    for _ in 0..1000 {
        requests.push(json!({"usage_id": Uuid::new_v4(), "amount": 1}));
    }
    let usage = env.usage(customer.account, 20).await;
    requests[999]["usage_id"] = json!(usage);
    let mut group = json!({"billing_id": customer.account, "requests": requests, "padding": ""});
    let padding = 1024 * 1024 - group.to_string().len();
    group["padding"] = json!("x".repeat(padding));
    let response = gateway
        .send(&HttpRequest::group(group.to_string()).key("k"))
        .await;
    let results = results(&response);
    assert_eq!(results.len(), 1000);
    let refused = |(id, reason): &(String, Option<String>), index: usize| {
        *id == format!("k/{index}") && reason.as_deref() == Some("USAGE_NOT_FOUND")
    };
    let refused = (0..999).filter(|index| refused(&results[*index], *index));
    assert_eq!(refused.count(), 999);
    assert_eq!(results[999], ("k/999".into(), None));
    env.teardown().await;
}

/// A queue for refusals that is full, so that they wait on a rung.
async fn full_queue(env: &TestEnv) -> String {
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), AMQPValue::LongInt(0));
    let overflow = AMQPValue::LongString("reject-publish".into());
    limits.insert("x-overflow".into(), overflow);
    let name = format!("full.{}", env.prefix);
    let options = QueueDeclareOptions::default();
    let declared = env
        .channel
        .queue_declare(name.as_str().into(), options, limits);
    declared.await.expect("declared");
    let (exchange, key) = (env.name("replies").into(), "error.#".into());
    let options = QueueBindOptions { nowait: false };
    let bound = env.channel.queue_bind(
        name.as_str().into(),
        exchange,
        key,
        options,
        FieldTable::default(),
    );
    bound.await.expect("bound");
    name
}

#[tokio::test]
async fn a_group_is_answered_when_all_requests_are() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    env.set("GATEWAY__TIMEOUT", "300ms");
    let impatient = env.start_gateway().await;
    env.set("GATEWAY__TIMEOUT", "60s");
    let gateway = env.start_gateway().await;
    let full = full_queue(&env).await;
    let usage = env.usage(customer.account, 20).await;
    let group = json!({"billing_id": customer.account, "requests": [
        {"usage_id": usage, "amount": 21},
        {"usage_id": usage, "amount": 5},
    ]});
    let call = HttpRequest::group(group.to_string()).key("k");
    // The success has an event, and the refusal waits.
    let late = impatient.send(&call).await;
    let so_far = expected(&[("k/0", "NO_ANSWER_IN_TIME"), ("k/1", "")]);
    assert_eq!(results(&late), so_far);
    assert_eq!(env.entries(usage).await, 1);
    worker.logged("a queue refused messages").await;
    let mut connection = gateway.connect().await;
    connection.write(&call.bytes()).await;
    assert!(
        connection
            .is_silent(std::time::Duration::from_millis(300))
            .await
    );
    let options = QueueDeleteOptions::default();
    let deleted = env.channel.queue_delete(full.as_str().into(), options);
    deleted.await.expect("deleted");
    let wanted = expected(&[("k/0", "AMOUNT_EXCEEDS_USAGE"), ("k/1", "")]);
    assert_eq!(results(&connection.response().await), wanted);
    assert_eq!(results(&impatient.send(&call).await), wanted);
    env.teardown().await;
}

#[tokio::test]
async fn a_dead_letter_of_a_group_answers_each_request() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    env.sql(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22000'; END $$; \
             CREATE TRIGGER fails BEFORE INSERT ON billing_transactions FOR EACH ROW EXECUTE \
             FUNCTION fails()",
    )
    .await;
    // Usages can't be inserted any more.
    env.sql("ALTER TABLE billing_transactions DISABLE TRIGGER fails")
        .await;
    let (one, two) = (
        env.usage(customer.account, 20).await,
        env.usage(customer.account, 20).await,
    );
    env.sql("ALTER TABLE billing_transactions ENABLE TRIGGER fails")
        .await;
    for atomic in [true, false] {
        let group = json!({"billing_id": customer.account, "atomic": atomic, "requests": [
            {"usage_id": one, "amount": 5}, {"usage_id": two, "amount": 5},
        ]});
        let response = gateway
            .send(&HttpRequest::group(group.to_string()).key("k"))
            .await;
        let failed = "RETRIES_EXHAUSTED";
        assert_eq!(
            results(&response),
            expected(&[("k/0", failed), ("k/1", failed)])
        );
    }
    env.teardown().await;
}

#[tokio::test]
async fn a_group_counts_as_one_call_and_by_its_bytes() {
    let settings = [
        ("GATEWAY__MAX_IN_FLIGHT", "20"),
        ("GATEWAY__TIMEOUT", "60s"),
    ];
    let (env, mut worker) = TestEnv::with_worker_set(&settings).await;
    assert!(worker.stop().await.success());
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let usage = env.usage(customer.account, 20).await;
    let group = |padding: usize| {
        let requests = vec![json!({"usage_id": usage, "amount": 1}); 100];
        let group = json!({"billing_id": customer.account, "requests": requests,
            "padding": "x".repeat(padding)});
        HttpRequest::group(group.to_string())
    };
    let (small, large) = (group(0), group(64 * 1024));
    let (id, secret) = other_client(&env);
    let other = (id.as_str(), secret.as_str());
    // An address has four connections.
    let address = |n| Ipv4Addr::new(127, 0, 0, n);
    // The share is two calls: two small groups, or a large one.
    let mut calls = Vec::new();
    for (n, call, client) in [(2, &small, PUBLISHER), (3, &large, other)] {
        let mut connection = gateway.connect_from(address(n)).await;
        connection.write(&call.clone().by(client).bytes()).await;
        calls.push(connection);
        eventually("it is published", async || {
            env.depth(&env.name("work")).await as usize == calls.len()
        })
        .await;
    }
    let refused = async |n, call: &HttpRequest| {
        let response = gateway.send_from(address(n), call).await;
        assert_eq!(response.verdict(), (429, "TOO_MANY_REQUESTS".into()));
    };
    refused(4, &large).await;
    refused(5, &small.clone().by(other)).await;
    let mut second = gateway.connect_from(address(6)).await;
    second.write(&small.bytes()).await;
    eventually("it is published", async || {
        env.depth(&env.name("work")).await == 3
    })
    .await;
    refused(7, &small).await;
    let _worker = env.start_worker().await;
    calls.push(second);
    for mut connection in calls {
        assert_eq!(results(&connection.response().await).len(), 100);
    }
    env.teardown().await;
}
