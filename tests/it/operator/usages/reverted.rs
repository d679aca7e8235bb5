//! Usages that are reverted, wholly or in part, by any writer.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

/// How a writer may spell the id of a usage.
fn spellings(usage: Uuid) -> [String; 5] {
    [
        usage.to_string(),
        usage.to_string().to_uppercase(),
        usage.simple().to_string(),
        usage.braced().to_string(),
        usage.urn().to_string(),
    ]
}

#[tokio::test]
async fn a_usage_that_is_reverted_is_left_out() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let account = env.customer().await.account;
    let other = env.customer().await.account;
    for (nth, minute) in (0..5).zip(0..) {
        let usage = env.usage(account, 20).await;
        let spelling = &spellings(usage)[nth];
        assert_eq!(of_account(&env, account), [usage]);
        // The credit of another account names it, and a debit of its own: they revert nothing.
        env.frontier_revert(&format!("{usage}:other"), other, spelling, 20)
            .await;
        let metadata = json!({"revert_request_using": spelling});
        let debit = entry(&env, account, ("debit", 3, minute), None, &metadata).await;
        assert_eq!(of_account(&env, account), [debit, usage], "{spelling}");
        // A part of it, under the policy `once`.
        env.frontier_revert(&format!("{usage}:0"), account, spelling, 1)
            .await;
        assert_eq!(of_account(&env, account), [debit], "{spelling}");
        env.sql(&format!(
            "DELETE FROM billing_transactions WHERE id = '{debit}'"
        ))
        .await;
    }
    // One that revertd reverted counts, also when its entry is removed.
    let usage = env.usage(account, 20).await;
    let request = Request::revert(account, usage, 5).id("own");
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    assert!(of_account(&env, account).is_empty());
    env.sql(&format!(
        "DELETE FROM billing_transactions WHERE metadata ->> 'revert_request_using' = '{usage}'"
    ))
    .await;
    assert!(of_account(&env, account).is_empty());
    // One whose request was refused is not reverted.
    let usage = env.usage(account, 20).await;
    let request = Request::revert(account, usage, 21).id("refused");
    env.publish(&request).await;
    assert_eq!(
        events.answer(&request).await.verdict(),
        "AMOUNT_EXCEEDS_USAGE"
    );
    assert_eq!(of_account(&env, account), [usage]);
    env.teardown().await;
}

#[tokio::test]
async fn under_cumulative_the_remainder_is_asked_for() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
    let mut events = env.events().await;
    let account = env.customer().await.account;
    let mut asked = Vec::new();
    // Parts by Frontier, and by revertd, of a usage of 20; and what remains of it.
    let parts = [
        (&[][..], None, Some(20)),
        (&[5], None, Some(15)),
        (&[5, 6], None, Some(9)),
        (&[], Some(7), Some(13)),
        (&[5], Some(7), Some(8)),
        (&[-5], None, Some(20)),
        (&[20], None, None),
        (&[13], Some(7), None),
        (&[i64::MAX, i64::MAX], None, None),
    ];
    for (minute, (by_others, by_revertd, remaining)) in (0..).zip(parts) {
        let usage = entry(&env, account, ("debit", 20, minute), None, &json!({})).await;
        for (nth, part) in by_others.iter().enumerate() {
            let spelling = &spellings(usage)[nth];
            env.frontier_revert(&format!("{usage}:{nth}"), account, spelling, *part)
                .await;
        }
        if let Some(part) = by_revertd {
            let request = Request::revert(account, usage, part).id(&usage.to_string());
            env.publish(&request).await;
            assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
        }
        if let Some(remaining) = remaining {
            let suffix = match 20 - remaining {
                0 => String::new(),
                reverted => format!("-after-{reverted}"),
            };
            asked.push(json!({"usage_id": usage, "amount": remaining.to_string(),
                "billing_id": account, "message_id": format!("usages-{usage}{suffix}")}));
        }
    }
    let (status, lines, stderr) = usages(&env, &["--account", &account.to_string()]);
    assert_eq!((status, lines), (0, asked), "{stderr}");
    assert!(
        stderr.starts_with("6 usages of 1 account, 85 in all"),
        "{stderr}"
    );
    // What revertd reverted stays reverted by its record.
    env.sql("DELETE FROM billing_transactions WHERE metadata ? 'revert_request_using'")
        .await;
    let (_, lines, _) = usages(&env, &["--account", &account.to_string()]);
    let amounts: Vec<_> = lines.iter().map(|line| line["amount"].as_str()).collect();
    let expected = ["20", "20", "20", "13", "13", "20", "20", "13", "20"];
    assert_eq!(amounts, expected.map(Some));
    env.teardown().await;
}

#[tokio::test]
async fn a_usage_beyond_the_revert_window_is_left_out() {
    let mut env = TestEnv::new().await;
    let account = env.customer().await.account;
    entry(&env, account, ("debit", 5, 0), None, &json!({})).await;
    let recent = env.usage(account, 20).await;
    assert_eq!(of_account(&env, account).len(), 2);
    env.set("REVERT__MAX_AGE", "2h");
    assert_eq!(of_account(&env, account), [recent]);
    let (_, stdout, _) = told(&env, &["--account", &account.to_string(), "--dry-run"]);
    assert!(
        stdout.ends_with("\nusages older than 2h (revert.max_age) are left out\n"),
        "{stdout}"
    );
    env.teardown().await;
}
