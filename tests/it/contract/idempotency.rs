//! A request that is delivered again gets the same answer and changes nothing.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_request_delivered_many_times_is_one_request() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5);
    let too_much = Request::revert(customer.account, usage, 50);
    for _ in 0..10 {
        env.publish(&request).await;
        env.publish(&too_much).await;
    }
    let _worker = env.start_worker().await;
    env.publish(&request).await;
    env.publish(&too_much).await;
    for request in [&request, &too_much] {
        let first = events.answer(request).await;
        for _ in 0..10 {
            assert_eq!(events.answer(request).await.body, first.body);
        }
    }
    assert_eq!(env.reverts(usage).await.len(), 2);
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 2);
    env.teardown().await;
}

#[tokio::test]
async fn without_a_message_id_only_a_success_is_stored() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = uuid::Uuid::new_v4();
    let body = json!({"billing_id": customer.account, "usage_id": usage, "amount": 5});
    let ask = async |events: &mut Mailbox| {
        let request = Request::json(&body).single_attempt();
        env.publish(&request).await;
        events.answer(&request).await
    };
    let refused = ask(&mut events).await;
    assert_eq!(refused.verdict(), "USAGE_NOT_FOUND");
    assert_eq!(
        ask(&mut events).await.json()["id"],
        refused.json()["id"],
        "the same cause, the same id"
    );
    env.entry(
        usage,
        customer.account,
        "debit",
        "api.usage",
        20,
        &json!({}),
    )
    .await;
    let applied = ask(&mut events).await;
    assert_eq!(applied.verdict(), "usage.reverted");
    assert_eq!(ask(&mut events).await.body, applied.body);
    assert_eq!(env.count("SELECT count(*) FROM revertd.outcomes").await, 1);
    env.teardown().await;
}

#[tokio::test]
async fn the_first_of_two_contents_of_an_id_is_the_request() {
    let env = TestEnv::in_order().await;
    env.start_worker().await.stop().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    // In both orders of the usages' ids, by which the statement sorts.
    let mut usages = [
        env.usage(customer.account, 20).await,
        env.usage(customer.account, 20).await,
    ];
    usages.sort();
    let [low, high] = usages;
    let requests = [
        Request::revert(customer.account, high, 5).id("one"),
        Request::revert(customer.account, low, 5).id("one"),
        Request::revert(customer.account, low, 5).id("two"),
        Request::revert(customer.account, high, 5).id("two"),
    ];
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let mut verdicts = Vec::new();
    let mut reused = Vec::new();
    for request in &requests {
        let event = events.answer(request).await;
        verdicts.push(event.verdict());
        if event.verdict() == "REQUEST_ID_REUSED" {
            reused.push((request.clone(), event));
        }
    }
    assert_eq!(
        verdicts,
        [
            "usage.reverted",
            "REQUEST_ID_REUSED",
            "usage.reverted",
            "REQUEST_ID_REUSED"
        ]
    );
    for (request, event) in reused {
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.body, event.body);
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
