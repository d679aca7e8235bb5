//! Every row of the contract's table: the event, the effect on the ledger, where the message ends.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::ledger::Customer;
use crate::support::*;

/// Publishes, and returns the event; a refusal must leave the ledger as it was and no letter behind.
async fn refusal(env: &TestEnv, events: &mut Mailbox, request: Request) -> Message {
    let before = env.count("SELECT count(*) FROM billing_transactions").await;
    env.publish(&request).await;
    let event = events.answer(&request).await;
    let after = env.count("SELECT count(*) FROM billing_transactions").await;
    assert_eq!(before, after, "a refusal writes no entry");
    assert_eq!(event.json()["type"], "usage.revert.rejected");
    event
}

fn error(event: &Message) -> Value {
    event.json()["data"]["error"].clone()
}

#[tokio::test]
async fn a_revert_writes_both_legs_and_a_full_event() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    env.purchase(account, 100).await;
    let usage = env.usage(account, 20).await;
    let body = json!({"billing_id": account, "usage_id": usage, "amount": "5", "reason": "the job failed"});
    let request = Request::json(&body).id("job-1");
    env.publish(&request).await;
    let event = events.answer(&request).await;

    let id = Uuid::new_v5(
        &ledger::NAMESPACE,
        format!("{usage}:0:{account}").as_bytes(),
    );
    let legs = env.reverts(usage).await;
    let [customer, platform] = &legs[..] else {
        panic!("two legs, not {legs:?}")
    };
    let metadata =
        json!({"job": "render", "revert_request_using": usage, "revert_reason": "the job failed"});
    assert_eq!(customer.id, id, "the id that Frontier would give it");
    assert_eq!(customer.account, Some(account));
    assert_eq!(platform.account, Some(ledger::PLATFORM));
    assert_eq!(customer.kind.as_deref(), Some("credit"));
    assert_eq!(platform.kind.as_deref(), Some("debit"));
    for leg in [customer, platform] {
        assert_eq!(leg.amount, 5);
        assert_eq!(leg.source.as_deref(), Some("system.revert.api.usage"));
        assert_eq!(leg.description.as_deref(), Some("Revert: rendering"));
        assert_eq!(leg.user_id.as_deref(), Some("user-1"));
        assert_eq!(leg.metadata, metadata);
    }
    assert_eq!(env.balance(account).await, 85);

    assert_eq!(event.routing_key, format!("result.{org}"));
    let shown = event.json();
    assert_eq!(shown["specversion"], "1.0");
    assert_eq!(shown["type"], "usage.reverted");
    assert_eq!(shown["source"], "revertd");
    assert_eq!(shown["subject"], json!(usage));
    assert_eq!(
        shown["data"],
        json!({
            "request_id": "job-1", "usage_id": usage, "org_id": org, "billing_id": account, "amount": "5",
            "reason": "the job failed", "transaction_id": id, "platform_transaction_id": platform.id,
            "usage_amount": "20", "reverted_total": "5", "remaining": "15",
        })
    );
    let properties = &event.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(
        text(properties.content_type()).as_deref(),
        Some("application/cloudevents+json")
    );
    assert_eq!(
        text(properties.message_id()).as_deref(),
        shown["id"].as_str()
    );
    assert_eq!(
        text(properties.correlation_id()),
        Some(request.correlation())
    );
    assert_eq!(text(properties.kind()).as_deref(), Some("usage.reverted"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("revertd"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(properties.timestamp().is_some());
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn every_way_to_name_an_account_finds_it() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let project = env.project(org).await;
    let older = env.account(org).await;
    env.sql(&format!(
        "UPDATE billing_customers SET created_at = now() - interval '1 day' WHERE id = '{older}'"
    ))
    .await;
    for names in [
        json!({"billing_id": account}),
        json!({"billingId": account}),
        json!({"org_id": org}),
        json!({"orgId": org}),
        json!({"project_id": project}),
        json!({"projectId": project}),
        json!({"billing_id": account, "org_id": org}),
        json!({"billing_id": account, "project_id": project}),
        json!({"billing_id": account.to_string().to_uppercase(), "org_id": "", "project_id": null}),
    ] {
        let usage = env.usage(account, 20).await;
        let mut body = names.clone();
        body["usageId"] = json!(usage.to_string().to_uppercase());
        body["amount"] = json!(20);
        body["unknown"] = json!({"x": [1]});
        let request = Request::json(&body);
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), "usage.reverted", "{names}");
        assert_eq!(
            event.json()["data"]["billing_id"],
            json!(account),
            "{names}"
        );
        assert_eq!(event.json()["data"]["remaining"], "0", "{names}");
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

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

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a line for each row of the table")]
async fn rows_6_to_12_are_refused_and_stored() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__MAX_AGE", "24h")]).await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    let other = env.customer().await;
    let usage = env.usage(account, 20).await;
    let others = env.usage(other.account, 20).await;
    let purchase = env.purchase(account, 20).await;
    let old = env.usage(account, 20).await;
    env
        .sql(&format!(
            "UPDATE billing_transactions SET created_at = now() - interval '25 hours' WHERE id = '{old}'"
        ))
        .await;
    let reverted = env.usage(account, 20).await;
    let first = Request::revert(account, reverted, 5).id("first");
    env.publish(&first).await;
    let success = events.answer(&first).await.json();
    let revert = success["data"]["transaction_id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a uuid");
    let platform = success["data"]["platform_transaction_id"]
        .as_str()
        .expect("an id");
    let platform: Uuid = platform.parse().expect("a uuid");

    for (id, request, reason, code) in [
        (
            "first",
            Request::revert(account, usage, 5),
            "REQUEST_ID_REUSED",
            3,
        ),
        (
            "7a",
            Request::revert(account, Uuid::new_v4(), 5).single_attempt(),
            "USAGE_NOT_FOUND",
            5,
        ),
        (
            "7b",
            Request::revert(account, others, 5).single_attempt(),
            "USAGE_NOT_FOUND",
            5,
        ),
        (
            "7c",
            Request::revert(account, platform, 5).single_attempt(),
            "USAGE_NOT_FOUND",
            5,
        ),
        (
            "8",
            Request::revert(account, revert, 5),
            "REVERT_OF_REVERT",
            9,
        ),
        ("9", Request::revert(account, purchase, 5), "NOT_A_USAGE", 9),
        (
            "10",
            Request::revert(account, old, 5),
            "REVERT_WINDOW_CLOSED",
            9,
        ),
        (
            "11",
            Request::revert(account, reverted, 5),
            "ALREADY_REVERTED",
            6,
        ),
        (
            "12",
            Request::revert(account, usage, 21),
            "AMOUNT_EXCEEDS_USAGE",
            3,
        ),
        (
            "12b",
            Request::revert(account, usage, i64::MAX),
            "AMOUNT_EXCEEDS_USAGE",
            3,
        ),
    ] {
        let request = request.id(id);
        let event = refusal(&env, &mut events, request.clone()).await;
        assert_eq!(event.verdict(), reason, "{id}");
        assert_eq!(error(&event)["code"], code, "{id}");
        assert_eq!(event.routing_key, format!("error.{org}"), "{id}");
        let again = refusal(&env, &mut events, request).await;
        assert_eq!(again.body, event.body, "{id}: the same event again");
        let metadata = &error(&event)["details"][0]["metadata"];
        match id {
            "11" => {
                assert_eq!(
                    metadata["transaction_id"],
                    success["data"]["transaction_id"]
                );
                assert_eq!(metadata["amount"], "5");
                assert_eq!(metadata["time"], success["time"]);
            }
            "12" | "12b" => assert_eq!(metadata["remaining"], "20"),
            _ => assert_eq!(*metadata, json!({}), "{id}"),
        }
    }
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 11);
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn metadata_of_a_usage_does_not_change_its_kind() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { account, .. } = env.customer().await;
    for metadata in [
        json!({"revert_request_using": Uuid::new_v4()}),
        json!({"revert_reason": "forged", "revert_request_using": 7}),
        json!(null),
        json!([1]),
        json!("revert_request_using"),
    ] {
        let usage = Uuid::new_v4();
        env.entry(usage, account, "debit", "system.revert.x", 20, &metadata)
            .await;
        env.sql(&format!(
            "UPDATE billing_transactions SET source = NULL, description = NULL, user_id = NULL \
                 WHERE id = '{usage}'"
        ))
        .await;
        let request = Request::revert(account, usage, 20);
        env.publish(&request).await;
        assert_eq!(
            events.answer(&request).await.verdict(),
            "usage.reverted",
            "{metadata}"
        );
        let legs = env.reverts(usage).await;
        assert_eq!(legs.len(), 2, "{metadata}");
        for leg in legs {
            assert_eq!(leg.metadata, json!({"revert_request_using": usage}));
            assert_eq!(leg.source.as_deref(), Some("system.revert."));
            assert_eq!(leg.description.as_deref(), Some("Revert: "));
            assert_eq!(leg.user_id, None);
        }
    }
    let typeless = Uuid::new_v4();
    env.entry(typeless, account, "debit", "x", 20, &json!({}))
        .await;
    env.sql(&format!(
        "UPDATE billing_transactions SET type = NULL WHERE id = '{typeless}'"
    ))
    .await;
    let request = Request::revert(account, typeless, 20);
    assert_eq!(
        refusal(&env, &mut events, request).await.verdict(),
        "NOT_A_USAGE"
    );
    env.teardown().await;
}
