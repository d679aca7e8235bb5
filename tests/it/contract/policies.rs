//! `once` and `cumulative`, within one batch and across batches.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn cumulative_reverts_add_up_to_the_usage() {
    let mut env = TestEnv::in_order().await;
    env.set("REVERT__POLICY", "cumulative");
    let mut worker = env.start_worker().await;
    assert!(worker.stop().await.success());
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let requests: Vec<_> = [5, 18, 10, 6, 5, 1]
        .map(|amount| Request::revert(customer.account, usage, amount))
        .into();
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let mut told = Vec::new();
    for request in &requests {
        let event = events.answer(request).await;
        let data = &event.json()["data"];
        let remaining = data["error"]["details"][0]["metadata"]["remaining"].as_str();
        let remaining = remaining
            .or(data["remaining"].as_str())
            .expect("told")
            .to_owned();
        told.push((event.verdict(), remaining));
    }
    let expected = [
        ("usage.reverted", "15"),
        ("AMOUNT_EXCEEDS_USAGE", "15"),
        ("usage.reverted", "5"),
        ("AMOUNT_EXCEEDS_USAGE", "5"),
        ("usage.reverted", "0"),
        ("AMOUNT_EXCEEDS_USAGE", "0"),
    ];
    assert_eq!(
        told,
        expected.map(|(verdict, remaining)| (verdict.into(), remaining.into()))
    );
    let ids: Vec<_> = env.reverts(usage).await.iter().map(|leg| leg.id).collect();
    for n in 0..3 {
        let text = format!("{usage}:{n}:{}", customer.account);
        assert!(
            ids.contains(&uuid::Uuid::new_v5(&ledger::NAMESPACE, text.as_bytes())),
            "{n}"
        );
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn cumulative_needs_a_message_id() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request =
        Request::json(&json!({"billing_id": customer.account, "usage_id": usage, "amount": 5}));
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "INVALID_FIELD");
    let violation = &event.json()["data"]["error"]["details"][1]["fieldViolations"][0];
    assert_eq!(violation["field"], "message_id");
    assert!(env.reverts(usage).await.is_empty());
    env.teardown().await;
}

#[tokio::test]
async fn once_reverts_the_first_request_that_fits() {
    let env = TestEnv::in_order().await;
    let mut worker = env.start_worker().await;
    assert!(worker.stop().await.success());
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let requests: Vec<_> = [25, 5, 20, 25]
        .map(|amount| Request::revert(customer.account, usage, amount))
        .into();
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let mut verdicts = Vec::new();
    for request in &requests {
        let event = events.answer(request).await;
        if event.verdict() == "ALREADY_REVERTED" {
            let metadata = event.json()["data"]["error"]["details"][0]["metadata"].clone();
            assert_eq!(metadata["amount"], "5");
        }
        verdicts.push(event.verdict());
    }
    assert_eq!(
        verdicts,
        [
            "AMOUNT_EXCEEDS_USAGE",
            "usage.reverted",
            "ALREADY_REVERTED",
            "ALREADY_REVERTED"
        ]
    );
    assert_eq!(env.reverts(usage).await.len(), 2);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_change_of_policy_counts_from_the_next_batch() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let mut ask = async |env: &TestEnv, amount| {
        let request = Request::revert(customer.account, usage, amount);
        env.publish(&request).await;
        events.answer(&request).await.verdict()
    };
    assert_eq!(ask(&env, 5).await, "usage.reverted");
    assert_eq!(ask(&env, 5).await, "ALREADY_REVERTED");
    worker.stop().await;
    env.set("REVERT__POLICY", "cumulative");
    let mut worker = env.start_worker().await;
    assert_eq!(ask(&env, 10).await, "usage.reverted");
    assert_eq!(ask(&env, 6).await, "AMOUNT_EXCEEDS_USAGE");
    worker.stop().await;
    env.set("REVERT__POLICY", "once");
    let _worker = env.start_worker().await;
    assert_eq!(ask(&env, 5).await, "ALREADY_REVERTED");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn the_largest_amounts_do_not_overflow() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, i64::MAX).await;
    for (amount, verdict) in [
        (i64::MAX - 1, "usage.reverted"),
        (i64::MAX, "AMOUNT_EXCEEDS_USAGE"),
        (2, "AMOUNT_EXCEEDS_USAGE"),
        (1, "usage.reverted"),
        (1, "AMOUNT_EXCEEDS_USAGE"),
    ] {
        let request = Request::revert(customer.account, usage, amount);
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.verdict(), verdict, "{amount}");
    }
    env.teardown().await;
}
