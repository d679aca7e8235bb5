//! If several refusals apply, the first row of the table decides.

use lapin::types::AMQPValue;
use revertd::domain::refusal::RefusalReason;
use serde_json::json;
use uuid::Uuid;

use crate::support::*;

/// The request with that login as its client.
fn by(login: &str, request: Request) -> Request {
    let properties = request.properties.with_user_id(login.into());
    Request {
        properties,
        ..request
    }
}

#[tokio::test]
async fn the_first_row_of_the_table_decides() {
    let settings = [
        ("REVERT__MAX_AGE", "24h"),
        ("AUTHORIZATION__MODE", "grants"),
    ];
    let (env, _worker) = TestEnv::with_worker_set(&settings).await;
    let mut events = env.events().await;
    let (customer, stranger) = (env.customer().await, env.customer().await);
    let (org, account) = (customer.org, customer.account);
    let login = env.login();
    let granted = env
        .command(&["grants", "add", &login, &org.to_string()])
        .output();
    assert!(granted.expect("runs").status.success());
    let by_client = |request| by(&login, request);
    let (usage, nobody) = (env.usage(account, 20).await, Uuid::new_v4());
    let first = by_client(Request::revert(account, usage, 5)).id("taken");
    env.publish(&first).await;
    let success = events.answer(&first).await.json();
    let revert: Uuid = success["data"]["transaction_id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a uuid");
    let old = env.usage(account, 20).await;
    let reverted_old = by_client(Request::revert(account, old, 1));
    env.publish(&reverted_old).await;
    events.answer(&reverted_old).await;
    let purchase = env.purchase(account, 20).await;
    let open = env.usage(account, 20).await;
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = now() - interval '25 hours' \
             WHERE id IN ('{old}', '{purchase}', '{revert}')"
    ))
    .await;
    let invalid = Request::json(&json!({"billing_id": nobody, "usage_id": usage, "amount": 0}));
    let missing = json!({"billing_id": nobody, "org_id": org, "usage_id": usage, "amount": 5});
    let max = i64::MAX;
    // Each request meets the condition of its row and those of later rows.
    let table = [
        ("MALFORMED_REQUEST", Request::raw("{").id("taken")),
        ("CLIENT_UNKNOWN", invalid.clone().id("taken")),
        ("INVALID_FIELD", by_client(invalid).id("taken")),
        (
            "ORG_NOT_GRANTED",
            by_client(Request::revert(nobody, usage, 5)).id("taken"),
        ),
        (
            "ORG_NOT_GRANTED",
            by_client(Request::revert(stranger.account, usage, 5)).id("taken"),
        ),
        (
            "BILLING_ACCOUNT_NOT_FOUND",
            by_client(Request::json(&missing)).id("taken"),
        ),
        (
            "REQUEST_ID_REUSED",
            by_client(Request::revert(account, nobody, 5)).id("taken"),
        ),
        (
            "REQUEST_ID_REUSED",
            by_client(Request::revert(account, revert, 5)).id("taken"),
        ),
        (
            "USAGE_NOT_FOUND",
            by_client(Request::revert(account, nobody, max)).single_attempt(),
        ),
        (
            "REVERT_OF_REVERT",
            by_client(Request::revert(account, revert, max)),
        ),
        (
            "NOT_A_USAGE",
            by_client(Request::revert(account, purchase, max)),
        ),
        (
            "REVERT_WINDOW_CLOSED",
            by_client(Request::revert(account, old, max)),
        ),
        (
            "ALREADY_REVERTED",
            by_client(Request::revert(account, usage, max)),
        ),
        (
            "AMOUNT_EXCEEDS_USAGE",
            by_client(Request::revert(account, open, max)),
        ),
    ];
    let mut reasons: Vec<_> = table.iter().map(|(reason, _)| *reason).collect();
    reasons.dedup();
    let mut all = [vec!["MALFORMED_REQUEST"], RefusalReason::names()].concat();
    // Only a request of an atomic group gets it.
    assert_eq!(all.pop(), Some("GROUP_REFUSED"));
    assert_eq!(
        reasons, all,
        "every row of the table of refusals, in its order"
    );
    for (reason, request) in table {
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
