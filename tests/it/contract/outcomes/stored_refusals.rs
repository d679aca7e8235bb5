//! Rows 6 to 12 of the table: refusals that are stored.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::ledger::Customer;
use crate::support::*;

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
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = now() - interval '25 hours' WHERE id = \
                '{old}'"
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
