//! Delivered again, a request answers the same and changes nothing.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_request_delivered_many_times_in_one_batch_and_later_is_one_request() {
    let stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5);
    let too_much = Request::revert(customer.account, usage, 50);
    for _ in 0..10 {
        stage.publish(&request).await;
        stage.publish(&too_much).await;
    }
    let _worker = stage.start_worker().await;
    stage.publish(&request).await;
    stage.publish(&too_much).await;
    for request in [&request, &too_much] {
        let first = events.answer(request).await;
        for _ in 0..10 {
            assert_eq!(events.answer(request).await.body, first.body);
        }
    }
    assert_eq!(stage.reverts(usage).await.len(), 2);
    assert_eq!(
        stage.count("SELECT count(*) FROM revertd.outcomes").await,
        2
    );
    stage.teardown().await;
}

#[tokio::test]
async fn without_a_message_id_a_success_is_remembered_and_a_refusal_is_not() {
    let (stage, _worker) = Stage::with_worker().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let usage = uuid::Uuid::new_v4();
    let body = json!({"billing_id": customer.account, "usage_id": usage, "amount": 5});
    let ask = async |events: &mut Mailbox| {
        let request = Request::json(&body).once();
        stage.publish(&request).await;
        events.answer(&request).await
    };
    let refused = ask(&mut events).await;
    assert_eq!(refused.verdict(), "USAGE_NOT_FOUND");
    assert_eq!(
        ask(&mut events).await.json()["id"],
        refused.json()["id"],
        "the same cause, the same id"
    );
    stage
        .entry(
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
    assert_eq!(
        stage.count("SELECT count(*) FROM revertd.outcomes").await,
        1
    );
    stage.teardown().await;
}

#[tokio::test]
async fn of_two_contents_under_one_id_in_a_batch_the_first_is_the_request() {
    let stage = Stage::in_order().await;
    stage.start_worker().await.stop().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    // In both orders of the usages' ids, by which the statement sorts.
    let mut usages = [
        stage.usage(customer.account, 20).await,
        stage.usage(customer.account, 20).await,
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
        stage.publish(request).await;
    }
    let _worker = stage.start_worker().await;
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
        stage.publish(&request).await;
        assert_eq!(events.answer(&request).await.body, event.body);
    }
    stage.assert_ledger_is_sound().await;
    stage.teardown().await;
}
