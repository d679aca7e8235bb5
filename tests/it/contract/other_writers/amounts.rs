//! Amounts and times of rows of other writers, also unusual ones.

use serde_json::json;

use super::super::batches::{decide, request};
use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn a_time_outside_the_range_of_events_is_left_out() {
    for time in [
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 BC'",
        "'10000-01-01'",
    ] {
        let (env, _worker) = TestEnv::with_worker().await;
        let mut events = env.events().await;
        let account = env.customer().await.account;
        let usage = env.usage(account, 20).await;
        let name = format!("{usage}:0:{account}");
        let others = env
            .frontier_revert(&name, account, &usage.to_string(), 5)
            .await;
        set_created_at(&env, others, time).await;
        let asked = Request::revert(account, usage, 5).id("x");
        for _ in 0..2 {
            env.publish(&asked).await;
            let event = events.answer(&asked).await;
            assert_eq!(event.verdict(), "ALREADY_REVERTED", "{time}");
            let metadata = &event.json()["data"]["error"]["details"][0]["metadata"];
            let told = json!({"transaction_id": others, "amount": "5"});
            assert_eq!(metadata, &told, "{time}");
        }
        let output = env
            .command(&["status", &usage.to_string()])
            .output()
            .expect("runs");
        let (told, wrong) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{time}: {told} {wrong}");
        assert!(told.contains(&others.to_string()), "{time}: {told}");
        assert_eq!(verified(&env), Vec::<String>::new(), "{time}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn an_outcome_stored_without_a_time_is_read() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "once", 20).await;
    let name = format!("{usage}:0:{account}");
    env.frontier_revert(&name, account, &usage.to_string(), 5)
        .await;
    let asked = [request("x", usage, account, 5)];
    assert_eq!(decide(&env, &asked).await, ["ALREADY_REVERTED"]);
    env.sql(
        "UPDATE revertd.outcomes SET refusal_metadata = refusal_metadata || '{\"time\": null}'",
    )
    .await;
    assert_eq!(decide(&env, &asked).await, ["ALREADY_REVERTED"]);
    env.teardown().await;
}

#[tokio::test]
async fn sums_above_int64_are_refused() {
    for (policy, usage_amount, refused) in [
        ("once", 20, "ALREADY_REVERTED"),
        ("cumulative", 20, "AMOUNT_EXCEEDS_USAGE"),
        ("cumulative", i64::MAX, "AMOUNT_EXCEEDS_USAGE"),
        ("cumulative", i64::MIN, "AMOUNT_EXCEEDS_USAGE"),
    ] {
        let mut env = TestEnv::new().await;
        let (account, usage) = usage_of(&mut env, policy, usage_amount).await;
        for n in [0, 1] {
            let name = format!("{usage}:{n}:{account}");
            env.frontier_revert(&name, account, &usage.to_string(), i64::MAX)
                .await;
        }
        let asked = [
            request("a", usage, account, 1),
            request("b", usage, account, i64::MAX),
        ];
        let verdicts = decide(&env, &asked).await;
        assert_eq!(verdicts, [refused; 2], "{policy} {usage_amount}");
        let findings = verified(&env);
        let excess = |finding: &String| finding.contains("EXCESS_WITH_OTHERS");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings.iter().all(excess), "{findings:?}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_usage_of_zero_or_less_cannot_be_reverted() {
    for policy in ["once", "cumulative"] {
        for amount in [0, -1, i64::MIN] {
            let mut env = TestEnv::new().await;
            let (account, usage) = usage_of(&mut env, policy, amount).await;
            let asked = [
                request("a", usage, account, 1),
                request("b", usage, account, i64::MAX),
            ];
            let verdicts = decide(&env, &asked).await;
            assert_eq!(verdicts, ["AMOUNT_EXCEEDS_USAGE"; 2], "{policy} {amount}");
            env.teardown().await;
        }
    }
}

#[tokio::test]
async fn a_negative_credit_does_not_raise_the_remainder() {
    let mut env = TestEnv::new().await;
    let (account, usage) = usage_of(&mut env, "cumulative", 20).await;
    let name = format!("{usage}:0:{account}");
    env.frontier_revert(&name, account, &usage.to_string(), -10)
        .await;
    let asked = [
        request("a", usage, account, 21),
        request("b", usage, account, 20),
        request("c", usage, account, 1),
    ];
    let exceeds = "AMOUNT_EXCEEDS_USAGE";
    assert_eq!(decide(&env, &asked).await, [exceeds, "APPLIED", exceeds]);
    env.teardown().await;
}

#[tokio::test]
async fn an_entry_is_never_dated_before_its_usage() {
    let env = TestEnv::new().await;
    let account = env.customer().await.account;
    for ahead in ["now() + interval '1 hour'", "'infinity'"] {
        let usage = env.usage(account, 20).await;
        set_created_at(&env, usage, ahead).await;
        let verdicts = decide(&env, &[request(ahead, usage, account, 5)]).await;
        assert_eq!(verdicts, ["APPLIED"], "{ahead}");
        let dated = format!(
            "SELECT count(*) FROM billing_transactions r JOIN billing_transactions u ON u.id = \
                '{usage}' \
             WHERE r.metadata ->> 'revert_request_using' = '{usage}' AND r.created_at = \
             u.created_at"
        );
        assert_eq!(env.count(&dated).await, 2, "both legs, {ahead}");
    }
    assert_eq!(verified(&env), Vec::<String>::new());
    env.teardown().await;
}
