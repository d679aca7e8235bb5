//! Where several refusals apply, the first row of the table decides.

use lapin::types::AMQPValue;
use serde_json::json;
use uuid::Uuid;

use crate::support::*;

#[tokio::test]
async fn the_first_row_of_the_table_decides() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__MAX_AGE", "24h")]).await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let account = customer.account;
    let (usage, nobody) = (env.usage(account, 20).await, Uuid::new_v4());
    let first = Request::revert(account, usage, 5).id("taken");
    env.publish(&first).await;
    let success = events.answer(&first).await.json();
    let revert: Uuid = success["data"]["transaction_id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a uuid");
    let old = env.usage(account, 20).await;
    let reverted_old = Request::revert(account, old, 1);
    env.publish(&reverted_old).await;
    events.answer(&reverted_old).await;
    let purchase = env.purchase(account, 20).await;
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = now() - interval '25 hours' \
             WHERE id IN ('{old}', '{purchase}', '{revert}')"
    ))
    .await;
    let invalid = json!({"billing_id": nobody, "usage_id": usage, "amount": 0});
    for (request, reason) in [
        (Request::raw("{").id("taken"), "MALFORMED_REQUEST"),
        (Request::json(&invalid).id("taken"), "INVALID_FIELD"),
        (
            Request::revert(nobody, usage, 5).id("taken"),
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (
            Request::revert(account, nobody, 5).id("taken"),
            "REQUEST_ID_REUSED",
        ),
        (
            Request::revert(account, revert, 5).id("taken"),
            "REQUEST_ID_REUSED",
        ),
        (
            Request::revert(account, nobody, i64::MAX).single_attempt(),
            "USAGE_NOT_FOUND",
        ),
        (
            Request::revert(account, revert, i64::MAX),
            "REVERT_OF_REVERT",
        ),
        (Request::revert(account, purchase, i64::MAX), "NOT_A_USAGE"),
        (
            Request::revert(account, old, i64::MAX),
            "REVERT_WINDOW_CLOSED",
        ),
        (
            Request::revert(account, usage, i64::MAX),
            "ALREADY_REVERTED",
        ),
    ] {
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.verdict(), reason);
    }
    env.teardown().await;
}

#[tokio::test]
async fn a_stored_outcome_answers_before_everything_else() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5);
    let anonymous = env.usage(customer.account, 20).await;
    let body = json!({"billing_id": customer.account, "usage_id": anonymous, "amount": 5});
    let nameless = Request::json(&body);
    for request in [&request, &nameless] {
        env.publish(request).await;
    }
    let (first, second) = (
        events.answer(&request).await,
        events.answer(&nameless).await,
    );
    assert!(worker.stop().await.success());
    env.sql(&format!(
        "UPDATE billing_customers SET deleted_at = now() WHERE id = '{}'; \
             DELETE FROM billing_transactions",
        customer.account
    ))
    .await;
    env.set("REVERT__POLICY", "cumulative");
    env.set("REVERT__MAX_AGE", "1ms");
    let _worker = env.start_worker().await;
    for (request, event) in [(&request, &first), (&nameless, &second)] {
        env.publish(request).await;
        assert_eq!(events.answer(request).await.body, event.body);
    }
    env.teardown().await;
}

#[tokio::test]
async fn spelling_and_other_properties_are_not_content() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let (account, usage) = (customer.account, env.usage(customer.account, 20).await);
    let one = format!(r#"{{"billing_id":"{account}","usage_id":"{usage}","amount":5}}"#);
    let other = format!(
        r#"{{ "amount":"5", "usageId":"{}", "billingId":"{account}", "reason":"", "new":[] }}"#,
        usage.to_string().to_uppercase()
    );
    let first = Request::raw(one).id("same");
    let second = Request::raw(other)
        .id("same")
        .header("x", AMQPValue::Boolean(true));
    env.publish(&first).await;
    let event = events.answer(&first).await;
    env.publish(&second).await;
    assert_eq!(events.answer(&second).await.body, event.body);
    assert_eq!(env.reverts(usage).await.len(), 2);
    env.teardown().await;
}
