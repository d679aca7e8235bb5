//! Orgs and projects by name, and the default account of an org.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::ledger::Customer;
use crate::support::*;

async fn name(env: &TestEnv, table: &str, id: Uuid, name: &str) {
    let named = format!("UPDATE {table} SET name = $1 WHERE id = $2");
    let done = env.db.execute(&named, &[&name, &id]).await;
    assert_eq!(done.expect("named"), 1);
}

/// The verdict on a request for 5 of a usage on that account, which is referred to as `names` says.
async fn ask(env: &TestEnv, events: &mut Mailbox, account: Uuid, names: &Value) -> Message {
    let request = request(env, account, names).await;
    env.publish(&request).await;
    events.answer(&request).await
}

async fn request(env: &TestEnv, account: Uuid, names: &Value) -> Request {
    let usage = env.usage(account, 20).await;
    let mut body = names.clone();
    (body["usage_id"], body["amount"]) = (json!(usage), json!(5));
    Request::json(&body).id(&Uuid::new_v4().to_string())
}

#[tokio::test]
async fn the_default_account_is_the_newest_active_one() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let org = env.org().await;
    let mut accounts = Vec::new();
    for (days, rest) in [
        (5, "id = id"),
        (3, "id = id"),
        (2, "state = 'disabled'"),
        (1, "deleted_at = now()"),
    ] {
        let account = env.account(org).await;
        env.sql(&format!(
            "UPDATE billing_customers SET created_at = now() - interval '{days} days', {rest} \
                 WHERE id = '{account}'"
        ))
        .await;
        accounts.push(account);
    }
    let project = env.project(org).await;
    for names in [json!({"org_id": org}), json!({"project_id": project})] {
        let event = ask(&env, &mut events, accounts[1], &names).await;
        assert_eq!(event.verdict(), "usage.reverted", "{names}");
        assert_eq!(event.json()["data"]["billing_id"], json!(accounts[1]));
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn an_org_and_a_project_may_be_named() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let project = env.project(org).await;
    // Sixteen bytes, as an id has; and characters that are no letters.
    for (of_org, of_project) in [("sixteen-letters!", "x"), ("a' OR b\"$1\\", "größe 🦀")] {
        name(&env, "organizations", org, of_org).await;
        name(&env, "projects", project, of_project).await;
        for names in [
            json!({"org_id": of_org}),
            json!({"orgId": of_org}),
            json!({"project_id": of_project}),
            json!({"projectId": of_project}),
            json!({"billing_id": account, "org_id": of_org}),
            json!({"billing_id": account, "project_id": of_project}),
            json!({"org_id": org.simple().to_string()}),
            json!({"org_id": org.urn().to_string()}),
        ] {
            let event = ask(&env, &mut events, account, &names).await;
            assert_eq!(event.verdict(), "usage.reverted", "{names}");
            assert_eq!(event.routing_key, format!("result.{org}"), "{names}");
            assert_eq!(event.json()["data"]["org_id"], json!(org), "{names}");
        }
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn an_unknown_name_or_one_of_another_org_is_not_found() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let (other, gone) = (env.customer().await.org, env.org().await);
    let (project, closed) = (env.project(other).await, env.project(org).await);
    name(&env, "organizations", other, "other").await;
    name(&env, "organizations", gone, "gone").await;
    name(&env, "projects", project, "others-project").await;
    name(&env, "projects", closed, "closed").await;
    env.sql(&format!(
        "UPDATE organizations SET deleted_at = now() WHERE id = '{gone}'; \
             UPDATE projects SET deleted_at = now() WHERE id = '{closed}'"
    ))
    .await;
    for names in [
        json!({"org_id": "nowhere"}),
        json!({"org_id": "OTHER"}),
        json!({"org_id": "gone"}),
        json!({"project_id": "nothing"}),
        json!({"project_id": "closed"}),
        // The names of the one are not those of the other.
        json!({"project_id": "other"}),
        json!({"org_id": "others-project"}),
        json!({"billing_id": account, "org_id": "other"}),
        json!({"billing_id": account, "org_id": "nowhere"}),
        json!({"billing_id": account, "project_id": "others-project"}),
        json!({"billing_id": account, "project_id": "nothing"}),
    ] {
        let event = ask(&env, &mut events, account, &names).await;
        assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND", "{names}");
        assert_eq!(event.routing_key, "error.unknown", "{names}");
        assert_eq!(event.json()["data"].get("org_id"), None, "{names}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn an_impossible_name_is_an_invalid_field() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let account = env.customer().await.account;
    let (long, longest) = ("é".repeat(256), "é".repeat(255));
    for wrong in [
        json!(long),
        json!("a\u{0}"),
        json!("a\nb"),
        json!(5),
        json!(["a"]),
    ] {
        for field in ["org_id", "project_id"] {
            let event = ask(&env, &mut events, account, &json!({field: wrong})).await;
            assert_eq!(event.verdict(), "INVALID_FIELD", "{field} {wrong}");
            let violations = &event.json()["data"]["error"]["details"][1]["fieldViolations"];
            assert_eq!(violations[0]["field"], field, "{wrong}");
        }
    }
    let event = ask(&env, &mut events, account, &json!({"org_id": longest})).await;
    assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND");
    env.teardown().await;
}

#[tokio::test]
async fn the_grant_of_the_named_org_is_required() {
    let (env, _worker) = TestEnv::with_worker_set(&[("AUTHORIZATION__MODE", "grants")]).await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let (other, gone) = (env.customer().await, env.org().await);
    name(&env, "organizations", org, "mine").await;
    name(&env, "organizations", other.org, "other").await;
    name(&env, "organizations", gone, "gone").await;
    let publisher = env.publisher().await;
    let client = &publisher.user;
    env.sql(&format!(
        "UPDATE organizations SET deleted_at = now() WHERE id = '{gone}'; \
             INSERT INTO revertd.grants (client, org_id, granted_by) VALUES \
             ('{client}', '{org}', 'test'), ('{client}', '{gone}', 'test')"
    ))
    .await;
    for (named, of, verdict) in [
        ("mine", account, "usage.reverted"),
        ("other", other.account, "ORG_NOT_GRANTED"),
        ("nowhere", account, "ORG_NOT_GRANTED"),
        ("gone", account, "BILLING_ACCOUNT_NOT_FOUND"),
    ] {
        let request = request(&env, of, &json!({"org_id": named})).await;
        publisher.publish(request.clone()).await;
        assert_eq!(events.answer(&request).await.verdict(), verdict, "{named}");
    }
    env.sql(&format!(
        "INSERT INTO revertd.grants (client, granted_by) VALUES ('{client}', 'test')"
    ))
    .await;
    let request = request(&env, account, &json!({"org_id": "nowhere"})).await;
    publisher.publish(request.clone()).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND");
    env.teardown().await;
}
