use super::support::*;

#[tokio::test]
async fn a_revert_writes_both_legs_and_answers() {
    let (stage, _worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5);
    stage.publish(&request).await;
    let event = stage.events().await.answer(&request).await;
    assert_eq!(event.verdict(), "usage.reverted");
    assert_eq!(stage.reverts(usage).await.len(), 2);
    stage.strike().await;
}
