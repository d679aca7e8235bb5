//! Which client a request belongs to under `grants`.

use lapin::options::BasicPublishOptions;
use lapin::types::AMQPValue;
use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn a_request_without_a_user_id_is_refused() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let (usage, names) = (
        env.usage(customer.account, 20).await,
        json!({"billing_id": customer.account}),
    );
    grant(&env, "add", &client.user, "*");
    let forged = |request: Request| {
        let client = AMQPValue::LongString(client.user.as_str().into());
        request.header("x-client", client)
    };
    for (request, reason) in [
        (by(&names, usage), "CLIENT_UNKNOWN"),
        (forged(by(&names, usage)), "CLIENT_UNKNOWN"),
        (Request::json(&json!({})), "CLIENT_UNKNOWN"),
        (Request::raw("rubbish"), "MALFORMED_REQUEST"),
    ] {
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), reason);
        if reason == "CLIENT_UNKNOWN" {
            let error = &event.json()["data"]["error"];
            assert_eq!(error["code"], 16);
            assert!(error["message"].to_string().contains("user_id"), "{error}");
            assert_eq!(event.routing_key, "denied.unknown");
        }
    }
    assert!(env.reverts(usage).await.is_empty());
    env.teardown().await;
}

#[tokio::test]
async fn x_client_counts_only_from_the_workers_login() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let worker_login = env.login();
    grant(&env, "add", &worker_login, "*");
    grant(&env, "add", "somebody", "*");
    // The client has no grant; those that he claims to be have.
    for claimed in [worker_login.as_str(), "somebody", "*", ""] {
        let request = by(&json!({"billing_id": customer.account}), usage)
            .header("x-client", AMQPValue::LongString(claimed.into()));
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED", "{claimed:?}");
    }
    // The broker itself refuses another login's name.
    let request = by(&json!({"billing_id": customer.account}), usage);
    let properties = request
        .properties
        .with_user_id(worker_login.as_str().into());
    let publishing = client.channel.basic_publish(
        env.name("requests").as_str().into(),
        "revert".into(),
        BasicPublishOptions::default(),
        &request.body,
        properties,
    );
    let confirmed = publishing.await.expect("written").await;
    assert!(confirmed.is_err(), "{confirmed:?}");
    assert!(env.reverts(usage).await.is_empty());
    env.teardown().await;
}

#[tokio::test]
async fn two_clients_with_one_message_id_are_two_requests() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let login = env.login();
    grant(&env, "add", &client.user, "*");
    grant(&env, "add", &login, "*");
    let names = json!({"billing_id": customer.account});
    let (one, other) = (
        by(&names, env.usage(customer.account, 20).await).id("same"),
        by(&names, env.usage(customer.account, 20).await).id("same"),
    );
    let first = ask(&mut events, &client, &one).await;
    assert_eq!(first.verdict(), "usage.reverted");
    let properties = other.properties.clone().with_user_id(login.as_str().into());
    let other = Request {
        properties,
        ..other
    };
    env.publish(&other).await;
    let second = events.answer(&other).await;
    assert_eq!(second.verdict(), "usage.reverted");
    assert_ne!(first.json()["id"], second.json()["id"]);
    env.teardown().await;
}

#[tokio::test]
async fn a_denied_request_takes_nothing_from_its_batch() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.start_worker().await.stop().await;
    let client = env.publisher().await;
    let login = env.login();
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    grant(&env, "add", &login, &customer.org.to_string());
    let names = json!({"billing_id": customer.account});
    let (before, good, after) = (by(&names, usage), by(&names, usage), by(&names, usage));
    let properties = good.properties.clone().with_user_id(login.as_str().into());
    let good = Request { properties, ..good };
    client.publish(before.clone()).await;
    env.publish(&good).await;
    client.publish(after.clone()).await;
    let _worker = env.start_worker().await;
    let mut events = env.events().await;
    assert_eq!(events.answer(&good).await.verdict(), "usage.reverted");
    for stranger in [before, after] {
        let event = events.answer(&stranger).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED");
    }
    assert_eq!(env.reverts(usage).await.len(), 2);
    env.teardown().await;
}

#[tokio::test]
async fn the_ladder_remembers_the_client() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    // Long enough on the last rung for a process to start and take the grant back.
    env.set("RETRY__DELAYS", "100ms,200ms,3s");
    let _worker = env.start_worker().await;
    let client = env.publisher().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    grant(&env, "add", &client.user, &customer.org.to_string());
    let missing = by(&json!({"billing_id": customer.account}), Uuid::new_v4());
    let event = ask(&mut events, &client, &missing).await;
    assert_eq!(event.verdict(), "USAGE_NOT_FOUND", "after three retries");
    let clients = format!(
        "SELECT count(*) FROM revertd.outcomes WHERE client = '{}'",
        client.user
    );
    assert_eq!(env.count(&clients).await, 1);
    // Taken back while a request waits on its rung, the grant is gone when it returns.
    let waiting = by(&json!({"billing_id": customer.account}), Uuid::new_v4());
    client.publish(waiting.clone()).await;
    eventually("it waits on the last rung", async || {
        env.depth(&env.name("retry.3s")).await > 0
    })
    .await;
    grant(&env, "remove", &client.user, &customer.org.to_string());
    let event = events.answer(&waiting).await;
    assert_eq!(event.verdict(), "ORG_NOT_GRANTED");
    env.teardown().await;
}

#[tokio::test]
async fn an_outcome_from_before_grants_still_answers() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = by(&json!({"billing_id": customer.account}), usage);
    env.publish(&request).await;
    let first = events.answer(&request).await;
    worker.stop().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let _worker = env.start_worker().await;
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.body, first.body);
    env.teardown().await;
}
