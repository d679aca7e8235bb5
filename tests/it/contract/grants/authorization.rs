//! The orgs that a client may name, and the facts that a refusal reveals.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::ledger::Customer;
use crate::support::*;

#[tokio::test]
async fn without_a_grant_nothing_is_revealed() {
    let (env, mut worker, client) = guarded().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let (project, usage) = (env.project(org).await, env.usage(account, 20).await);
    let empty = env.org().await;
    let (nobody, nothing) = (Uuid::new_v4(), Uuid::new_v4());
    let mut rejections = Vec::new();
    for (names, usage) in [
        (json!({"billing_id": account}), usage),
        (json!({"billing_id": account}), nothing),
        (json!({"billing_id": nobody}), usage),
        (json!({"org_id": org}), usage),
        (json!({"org_id": empty}), usage),
        (json!({"org_id": nobody}), nothing),
        (json!({"project_id": project}), usage),
        (json!({"project_id": nobody}), usage),
        (json!({"billing_id": account, "org_id": org}), usage),
        (json!({"billing_id": account, "org_id": nobody}), usage),
        (json!({"billing_id": account, "project_id": project}), usage),
        (json!({"billing_id": ledger::PLATFORM}), usage),
    ] {
        let request = by(&names, usage);
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED", "{names}");
        let shown = event.json();
        // It repeats the ids of the request, and nothing else.
        let data = shown["data"].as_object().expect("an object");
        assert_eq!(data["usage_id"], json!(usage));
        for field in ["org_id", "billing_id"] {
            assert_eq!(data.get(field), names.get(field), "{field} of {names}");
        }
        let key = names["org_id"].as_str().unwrap_or("unknown");
        assert_eq!(event.routing_key, format!("denied.{key}"));
        let mut fields: Vec<_> = data.keys().cloned().collect();
        fields.retain(|field| !["org_id", "billing_id"].contains(&field.as_str()));
        rejections.push((data["error"].clone(), fields));
    }
    rejections.dedup();
    assert_eq!(
        rejections.len(),
        1,
        "the same words for all: {rejections:?}"
    );
    let (error, _) = &rejections[0];
    assert_eq!(error["code"], 7);
    assert_eq!(error["details"][0]["metadata"], json!({}));
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("revertd grants add"), "{message}");
    assert!(env.reverts(usage).await.is_empty());
    let outcomes = "SELECT count(*) FROM revertd.outcomes";
    assert_eq!(env.count(outcomes).await, 0, "nothing is stored");
    worker.stop().await;
    assert!(
        worker.log().contains("retried=0"),
        "no ladder for a stranger"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_grant_and_its_end_count_from_the_next_batch() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let (usage, other) = (env.usage(account, 20).await, env.usage(account, 20).await);
    let request = by(&json!({"billing_id": account}), usage);
    let refused = ask(&mut events, &client, &request).await;
    let again = ask(&mut events, &client, &request).await;
    assert_eq!(refused.verdict(), "ORG_NOT_GRANTED");
    assert_eq!(refused.json()["id"], again.json()["id"]);

    grant(&env, "add", &client.user, &org.to_string());
    let reverted = ask(&mut events, &client, &request).await;
    assert_eq!(reverted.verdict(), "usage.reverted");

    grant(&env, "remove", &client.user, &org.to_string());
    let late = by(&json!({"billing_id": account}), other);
    assert_eq!(
        ask(&mut events, &client, &late).await.verdict(),
        "ORG_NOT_GRANTED"
    );
    // A stored outcome is the answer, even without a grant.
    let replayed = ask(&mut events, &client, &request).await;
    assert_eq!(replayed.body, reverted.body);
    env.teardown().await;
}

#[tokio::test]
async fn a_grant_is_for_one_org() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    let (mine, other) = (env.customer().await, env.customer().await);
    grant(&env, "add", &client.user, &mine.org.to_string());
    let (project, foreign_project) = (env.project(mine.org).await, env.project(other.org).await);
    let foreign = env.usage(other.account, 20).await;
    let nobody = Uuid::new_v4();
    for names in [
        json!({"billing_id": mine.account}),
        json!({"org_id": mine.org}),
        json!({"project_id": project}),
        json!({"billing_id": mine.account, "org_id": mine.org}),
        json!({"billing_id": mine.account, "project_id": project}),
    ] {
        let usage = env.usage(mine.account, 20).await;
        let event = ask(&mut events, &client, &by(&names, usage)).await;
        assert_eq!(event.verdict(), "usage.reverted", "{names}");
    }
    for (names, reason) in [
        (json!({"billing_id": other.account}), "ORG_NOT_GRANTED"),
        (json!({"org_id": other.org}), "ORG_NOT_GRANTED"),
        (json!({"project_id": foreign_project}), "ORG_NOT_GRANTED"),
        (json!({"billing_id": nobody}), "ORG_NOT_GRANTED"),
        // Within the granted org, a missing usage may be reported. A usage of another org looks the
        // same.
        (
            json!({"billing_id": other.account, "org_id": mine.org}),
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (
            json!({"billing_id": nobody, "org_id": mine.org}),
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (json!({"billing_id": mine.account}), "USAGE_NOT_FOUND"),
        (
            json!({"billing_id": mine.account, "org_id": other.org}),
            "ORG_NOT_GRANTED",
        ),
    ] {
        let request = by(&names, foreign).single_attempt();
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), reason, "{names}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn a_wildcard_grant_covers_every_org() {
    let (env, _worker, client) = guarded().await;
    let mut events = env.events().await;
    grant(&env, "add", &client.user, "*");
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let event = ask(
        &mut events,
        &client,
        &by(&json!({"org_id": customer.org}), usage),
    )
    .await;
    assert_eq!(event.verdict(), "usage.reverted");
    for names in [
        json!({"org_id": Uuid::new_v4()}),
        json!({"billing_id": Uuid::new_v4()}),
    ] {
        let event = ask(&mut events, &client, &by(&names, usage)).await;
        assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND");
    }
    env.teardown().await;
}

#[tokio::test]
async fn earlier_refusals_reveal_nothing_either() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.set("REVERT__POLICY", "cumulative");
    let _worker = env.start_worker().await;
    let client = env.publisher().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    for project in [env.project(customer.org).await, Uuid::new_v4()] {
        let body = json!({"project_id": project, "usage_id": usage, "amount": 5});
        let event = ask(&mut events, &client, &Request::json(&body)).await;
        assert_eq!(event.verdict(), "INVALID_FIELD");
        let data = &event.json()["data"];
        assert_eq!(data.get("org_id").or(data.get("billing_id")), None);
        assert_eq!(event.routing_key, "error.unknown");
    }
    env.teardown().await;
}
