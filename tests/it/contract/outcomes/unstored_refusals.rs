//! Rows 1, 3 and 5 of the table: refusals that are not stored.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn row_1_a_malformed_body_fails_and_is_dead_lettered() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, mut dead) = (env.events().await, env.dead_letters().await);
    let over = format!("{{\"x\":\"{}\"}}", "x".repeat(64 * 1024));
    let bodies: Vec<Vec<u8>> = vec![
        b"rubbish".to_vec(),
        Vec::new(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        over.into_bytes(),
        vec![b'x'; 10_000_000],
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
        let request = Request::raw(body).id("bad-1");
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.json()["type"], "usage.revert.failed", "{shown}");
        assert_eq!(event.routing_key, "error.unknown");
        assert_eq!(error(&event)["code"], 3);
        assert_eq!(event.verdict(), "MALFORMED_REQUEST");
        assert_eq!(event.json()["data"]["request_id"], "bad-1");
        let letter = dead.answer(&request).await;
        let kept = request.body.len().min(64 * 1024);
        assert_eq!(letter.body, request.body[..kept], "{shown}");
        assert_eq!(
            letter.text_header("x-error-reason").as_deref(),
            Some("MALFORMED_REQUEST")
        );
        assert_eq!(
            letter.header("x-error-code"),
            Some(lapin::types::AMQPValue::LongInt(3))
        );
        assert!(letter.text_header("x-error-message").is_some());
        assert!(letter.header("x-attempts").is_some());
        assert!(letter.text_header("x-first-attempt-at").is_some());
    }
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 0);
    env.teardown().await;
}

#[tokio::test]
async fn row_3_every_violation_is_listed() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let org = Uuid::new_v4();
    let body = json!({"usage_id": "x", "amount": "1e3", "org_id": org, "reason": 5});
    let event = refusal(&env, &mut events, Request::json(&body)).await;
    assert_eq!(error(&event)["code"], 3);
    assert_eq!(event.verdict(), "INVALID_FIELD");
    let details = &error(&event)["details"];
    assert_eq!(details[0]["domain"], "revertd");
    assert_eq!(
        details[1]["@type"],
        "type.googleapis.com/google.rpc.BadRequest"
    );
    let fields: Vec<_> = details[1]["fieldViolations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|violation| violation["field"].as_str().expect("a name"))
        .collect();
    assert_eq!(fields, ["usage_id", "amount", "reason"]);
    assert_eq!(
        event.routing_key,
        format!("error.{org}"),
        "what the request said of the org"
    );

    let nul = Request::json(&json!({"usage_id": org, "amount": 1, "org_id": org})).id("a\0b");
    let event = refusal(&env, &mut events, nul).await;
    assert_eq!(event.verdict(), "INVALID_FIELD");
    assert_eq!(
        error(&event)["details"][1]["fieldViolations"][0]["field"],
        "message_id"
    );
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 0);
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    env.teardown().await;
}

#[tokio::test]
async fn row_5_a_deleted_or_foreign_account_is_not_found() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let ours = env.customer().await;
    let other = env.customer().await;
    let (project, other_project) = (env.project(ours.org).await, env.project(other.org).await);
    let gone = env.customer().await;
    let deleted = env.account(ours.org).await;
    let deleted_project = env.project(ours.org).await;
    let disabled = env.customer().await;
    let now = "deleted_at = now()";
    for statement in [
        format!("UPDATE organizations SET {now} WHERE id = '{}'", gone.org),
        format!("UPDATE billing_customers SET {now} WHERE id = '{deleted}'"),
        format!("UPDATE projects SET {now} WHERE id = '{deleted_project}'"),
        format!(
            "UPDATE billing_customers SET state = 'disabled' WHERE id = '{}'",
            disabled.account
        ),
        format!(
            "INSERT INTO billing_customers (id, org_id, name, email, address, metadata) \
             VALUES ('{}', '{}', 'platform', '', '{{}}', '{{}}')",
            ledger::PLATFORM,
            ours.org
        ),
    ] {
        env.sql(&statement).await;
    }
    let usage = env.usage(ours.account, 20).await;
    let nobody = Uuid::new_v4();
    for (names, why) in [
        (json!({"billing_id": nobody}), "no such account"),
        (json!({"org_id": nobody}), "no such org"),
        (json!({"project_id": nobody}), "no such project"),
        (json!({"billing_id": deleted}), "a deleted account"),
        (json!({"org_id": gone.org}), "a deleted org"),
        (
            json!({"billing_id": gone.account}),
            "an account of a deleted org",
        ),
        (json!({"project_id": deleted_project}), "a deleted project"),
        (
            json!({"billing_id": ours.account, "project_id": deleted_project}),
            "that, with its account",
        ),
        (
            json!({"billing_id": ledger::PLATFORM}),
            "the platform's account",
        ),
        (
            json!({"billing_id": ours.account, "org_id": other.org}),
            "another's org",
        ),
        (
            json!({"billing_id": ours.account, "project_id": other_project}),
            "another's project",
        ),
        (
            json!({"billing_id": ours.account, "org_id": nobody}),
            "an org that is not there",
        ),
        (
            json!({"org_id": disabled.org}),
            "an org whose only account is disabled",
        ),
    ] {
        let mut body = names.clone();
        body["usage_id"] = json!(usage);
        body["amount"] = json!(1);
        let event = refusal(&env, &mut events, Request::json(&body).id(why)).await;
        assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND", "{why}");
        assert_eq!(error(&event)["code"], 5);
    }
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes").await,
        0,
        "not admitted, so not remembered"
    );
    let usage = env.usage(disabled.account, 20).await;
    let request = Request::revert(disabled.account, usage, 20);
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(
        event.verdict(),
        "usage.reverted",
        "a disabled account that is named"
    );
    let usage = env.usage(ours.account, 20).await;
    let body = json!({"usage_id": usage, "amount": 20, "project_id": project});
    let request = Request::json(&body);
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    env.teardown().await;
}
