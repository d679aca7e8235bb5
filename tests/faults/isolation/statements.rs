//! Statements, locks and rows that fail for one request.

use super::setup::*;
use crate::support::TestEnv;
use crate::support::report::{Finding, report_beside};
use crate::support::unrelated::UnrelatedRequests;

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_failed_by_one_request_delays_no_other() {
    let env = TestEnv::new().await;
    // An unknown class, a policy's error, a cancelled statement, a missing column, a value out of
    // range.
    let states = ["AB123", "42501", "57014", "42703", "22003"];
    let bad = requests(&env, states.len()).await;
    let marked = bad.iter().zip(states);
    let marked: Vec<_> = marked.map(|(bad, state)| (bad.1, state)).collect();
    mark(&env, &marked).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    for (_, _, request) in &bad {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let mut dead = env.dead_letters().await;
    for (_, usage, request) in &bad {
        let letter = dead.answer(request).await;
        if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
            count.found(Finding::Differing, format!("the dead letter of {usage}"));
        }
    }
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    assert!(worker.stop().await.success());
    report_beside(
        "beside: a statement that one request fails",
        1,
        count,
        &waits,
    );
    env.teardown().await;
}

/// One lock, or many: as many as a batch has requests.
async fn beside_locks(fault: &str, locks: usize) {
    let env = TestEnv::new().await;
    let bad = requests(&env, locks).await;
    let other = hold(&env, &bad).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    for (_, _, request) in &bad {
        env.publish(request).await;
    }
    let (count, waits) = unrelated.send_during_fault(&env).await;
    other.batch_execute("ROLLBACK").await.expect("rolled back");
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    assert!(worker.stop().await.success());
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_one_usage_delays_no_other() {
    beside_locks("beside: a lock on one usage", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_timeouts_of_many_usages_do_not_add_up() {
    beside_locks("beside: locks on 50 usages", 50).await;
}

/// A request that the server says to have no room for: the server's fault only where it has none
/// for others either.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_reported_disk_full_delays_no_other() {
    let env = TestEnv::new().await;
    let bad = requests(&env, 1).await;
    mark(&env, &[(bad[0].1, "53100")]).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    env.publish(&bad[0].2).await;
    let (count, waits) = unrelated.send_during_fault(&env).await;
    assert!(worker.stop().await.success());
    report_beside("beside: a request without room", 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_row_delays_no_other_request() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let bad = requests(&env, 1).await;
    let (_, usage, request) = &bad[0];
    let mut events = env.subscribe().await;
    env.publish(request).await;
    assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    env.sql(&format!(
        "UPDATE revertd.outcomes SET decided_at = 'infinity' WHERE usage_id = '{usage}'"
    ))
    .await;
    let unrelated = UnrelatedRequests::new(&env).await;
    env.publish(request).await;
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let letter = env.dead_letters().await.answer(request).await;
    if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
        count.found(Finding::Differing, format!("the dead letter of {usage}"));
    }
    assert!(worker.stop().await.success());
    report_beside("beside: a row that can't be read", 1, count, &waits);
    env.teardown().await;
}
