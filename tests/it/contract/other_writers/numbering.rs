//! The number in the id of an entry, beside rows of other writers.

use serde_json::json;
use uuid::Uuid;

use super::super::batches::{decide, request};
use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn both_writers_number_a_revert_the_same() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "once", 20).await;
    debit_that_names(&env, account, usage).await;
    // Frontier counts the debit, too.
    let frontier = frontier_reverting(&env, account, usage, 1, 20).await;
    let asked = [request("x", usage, account, 20)];
    let deciding = decide(&env, &asked);
    let committing = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND wait_event_type = 'Lock' AND application_name = 'revertd'";
        eventually("revertd waits for Frontier", async || {
            env.count(waiting).await == 1
        })
        .await;
        frontier.batch_execute("COMMIT").await.expect("committed");
    };
    let (verdicts, ()) = tokio::join!(deciding, committing);
    assert_eq!(verdicts, ["ALREADY_REVERTED"]);
    assert_eq!(given_back(&env, usage).await, 20);
    env.teardown().await;
}

#[tokio::test]
async fn a_debit_that_names_a_usage_reverts_nothing() {
    for policy in ["once", "cumulative"] {
        let mut env = TestEnv::new().await;
        let (account, usage) = usage_of(&mut env, policy, 20).await;
        debit_that_names(&env, account, usage).await;
        let verdicts = decide(&env, &[request("x", usage, account, 20)]).await;
        assert_eq!(verdicts, ["APPLIED"], "{policy}");
        let reverts = env.reverts(usage).await;
        let ids: Vec<_> = reverts.iter().map(|row| row.id).collect();
        assert!(ids.contains(&entry_id(usage, 1, account)), "{policy}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn the_number_of_a_revert_counts_all_rows() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "cumulative", 20).await;
    assert_eq!(
        decide(&env, &[request("a", usage, account, 5)]).await,
        ["APPLIED"]
    );
    // A debit that was reported again with the metadata of that revert.
    debit_that_names(&env, account, usage).await;
    let name = format!("{usage}:2:{account}");
    env.frontier_revert(&name, account, &usage.to_string(), 1)
        .await;
    let next = [
        request("b", usage, account, 2),
        request("c", usage, account, 12),
        request("d", usage, account, 1),
    ];
    let verdicts = decide(&env, &next).await;
    assert_eq!(verdicts, ["APPLIED", "APPLIED", "AMOUNT_EXCEEDS_USAGE"]);
    assert_eq!(given_back(&env, usage).await, 20);
    env.teardown().await;
}

#[tokio::test]
async fn a_deleted_entry_of_another_writer_is_no_dead_end() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "cumulative", 20).await;
    let one = async |id: &str, amount| decide(&env, &[request(id, usage, account, amount)]).await;
    assert_eq!(one("a", 5).await, ["APPLIED"]);
    let name = format!("{usage}:1:{account}");
    env.frontier_revert(&name, account, &usage.to_string(), 3)
        .await;
    assert_eq!(one("b", 2).await, ["APPLIED"]);
    env.sql("DELETE FROM billing_transactions WHERE amount = 3")
        .await;
    assert_eq!(one("c", 1).await, ["APPLIED"]);
    assert_eq!(one("d", 13).await, ["AMOUNT_EXCEEDS_USAGE"]);
    assert_eq!(one("e", 12).await, ["APPLIED"]);
    assert_eq!(one("f", 1).await, ["AMOUNT_EXCEEDS_USAGE"]);
    assert_eq!(given_back(&env, usage).await, 20);
    assert_eq!(verified(&env), Vec::<String>::new());
    env.teardown().await;
}

#[tokio::test]
async fn a_taken_entry_id_is_skipped() {
    for policy in ["once", "cumulative"] {
        let mut env = TestEnv::new().await;
        let (account, usage) = usage_of(&mut env, policy, 20).await;
        // The reporter of a usage chooses its id.
        let other_leg = |id: Uuid| {
            let text = id.to_string();
            Uuid::parse_str(&format!("{}8{}", &text[..14], &text[15..])).expect("a UUID")
        };
        let [first, second, fourth] = [0, 1, 3].map(|n| entry_id(usage, n, account));
        for id in [first, other_leg(second), fourth] {
            env.entry(id, account, "debit", "api.usage", 1, &json!({}))
                .await;
        }
        let asked = [
            request("a", usage, account, 5),
            request("b", usage, account, 6),
        ];
        let second = if policy == "once" {
            "ALREADY_REVERTED"
        } else {
            "APPLIED"
        };
        assert_eq!(decide(&env, &asked).await, ["APPLIED", second], "{policy}");
        let ids = format!(
            "SELECT count(*) FROM revertd.outcomes WHERE transaction_id = '{}'",
            entry_id(usage, 2, account)
        );
        assert_eq!(env.count(&ids).await, 1, "{policy}");
        assert_eq!(verified(&env), Vec::<String>::new(), "{policy}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn the_id_of_a_deleted_entry_is_not_reused() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "cumulative", 20).await;
    assert_eq!(
        decide(&env, &[request("a", usage, account, 5)]).await,
        ["APPLIED"]
    );
    env.sql(&format!(
        "DELETE FROM billing_transactions WHERE metadata ->> 'revert_request_using' = '{usage}'"
    ))
    .await;
    assert_eq!(
        decide(&env, &[request("b", usage, account, 15)]).await,
        ["APPLIED"]
    );
    assert_eq!(
        decide(&env, &[request("c", usage, account, 1)]).await,
        ["AMOUNT_EXCEEDS_USAGE"]
    );
    let ids = "SELECT count(DISTINCT transaction_id) FROM revertd.outcomes WHERE refusal IS NULL";
    assert_eq!(env.count(ids).await, 2);
    env.teardown().await;
}
