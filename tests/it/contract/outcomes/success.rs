//! A revert: both legs, the event, and every way to name the account.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::ledger::Customer;
use crate::support::*;

#[tokio::test]
async fn a_revert_writes_both_legs_and_a_full_event() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    env.purchase(account, 100).await;
    let usage = env.usage(account, 20).await;
    let body = json!({"billing_id": account, "usage_id": usage, "amount": "5", "reason": "the job \
        failed"});
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
            "request_id": "job-1", "usage_id": usage, "org_id": org, "billing_id": account,
                "amount": "5",
            "reason": "the job \
                failed", "transaction_id": id, "platform_transaction_id": platform.id,
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
