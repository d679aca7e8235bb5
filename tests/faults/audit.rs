//! The audit itself finds planted errors, and reports none without them.

use crate::report::AuditResult;
use crate::support::TestEnv;
use crate::support::audit::collect;
use crate::support::collected::Collected;
use crate::support::load::{Load, RequestKind};

/// One that was applied, and the first of its usage.
const APPLIED: &str = "(SELECT id FROM revertd.outcomes WHERE revert_no = 0 ORDER BY id LIMIT 1)";

/// The findings of the audit after the database was tampered with.
async fn tampered(
    env: &TestEnv,
    load: &Load,
    collected: &Collected,
    statement: &str,
) -> AuditResult {
    env.sql("BEGIN").await;
    let done = env.db.execute(statement, &[]).await;
    assert_eq!(done.expect("done"), 1, "{statement}");
    let count = collected.compare_with_model(load, &env.db).await;
    env.sql("ROLLBACK").await;
    count
}

#[tokio::test]
async fn the_audit_finds_lost_doubled_and_wrong_outcomes() {
    let mut env = TestEnv::new().await;
    env.set("REVERT__POLICY", "cumulative");
    let worker = env.start_worker().await;
    let load = Load::mixed(&env, 1, 300).await;
    load.publish(&env).await;
    let mut collected = collect(&env, &load, vec![worker]).await;
    let count = collected.compare_with_model(&load, &env.db).await;
    assert!(count.is_clean(), "{}", count.describe());

    let of = |leg: &str| format!("id = (SELECT {leg} FROM revertd.outcomes WHERE id = {APPLIED})");
    let (customer, platform) = (of("transaction_id"), of("platform_transaction_id"));
    for (statement, wrong) in [
        (
            format!("DELETE FROM billing_transactions WHERE {platform}"),
            "twice",
        ),
        (
            format!("UPDATE billing_transactions SET amount = amount + 1 WHERE {customer}"),
            "twice",
        ),
        (
            format!("UPDATE billing_transactions SET user_id = 'another' WHERE {platform}"),
            "twice",
        ),
        (
            format!(
                "INSERT INTO billing_transactions (account_id, type, amount, metadata) \
                 SELECT account_id, type, amount, metadata FROM billing_transactions WHERE \
                 {customer}"
            ),
            "twice",
        ),
        (
            format!(
                "UPDATE revertd.outcomes SET usage_amount = usage_amount + 1 WHERE id = {APPLIED}"
            ),
            "twice",
        ),
        (
            format!("DELETE FROM revertd.outcomes WHERE id = {APPLIED}"),
            "lost",
        ),
        (
            "UPDATE revertd.outcomes SET refusal_metadata = refusal_metadata || \
                '{\"remaining\": \"1000000\"}' \
             WHERE id = (SELECT id FROM revertd.outcomes WHERE refusal = 'AMOUNT_EXCEEDS_USAGE' \
             LIMIT 1)"
                .into(),
            "differing",
        ),
        (
            "UPDATE revertd.outcomes SET refusal = 'NOT_A_USAGE' \
             WHERE id = (SELECT id FROM revertd.outcomes WHERE refusal = 'USAGE_NOT_FOUND' LIMIT 1)"
                .into(),
            "differing",
        ),
    ] {
        let count = tampered(&env, &load, &collected, &statement).await;
        assert!(column(&count, wrong) > 0, "{statement}: {count:?}");
    }

    let correlation = env
        .db
        .query_one(
            &format!("SELECT message_id FROM revertd.outcomes WHERE id = {APPLIED}"),
            &[],
        )
        .await
        .expect("one")
        .get::<_, String>(0);
    let sent = load.requests.iter().find(|sent| {
        let id = sent.request.properties.message_id();
        id.as_ref().is_some_and(|id| id.as_str() == correlation)
    });
    let key = sent.expect("sent").request.correlation();
    let told = collected.events.remove(&key).expect("answered");
    let count = collected.compare_with_model(&load, &env.db).await;
    assert_eq!(
        (count.unanswered, count.lost),
        (1, 0),
        "{}",
        count.describe()
    );
    let mut two = told.clone();
    two.push(told[0].clone());
    two[1].body = String::from_utf8(told[0].body.clone())
        .expect("JSON")
        .replace("\"remaining\":\"", "\"remaining\":\"1")
        .into();
    collected.events.insert(key.clone(), two);
    assert!(collected.compare_with_model(&load, &env.db).await.differing > 0);
    collected.events.insert(key, told);
    assert!(
        collected
            .compare_with_model(&load, &env.db)
            .await
            .is_clean()
    );
    env.teardown().await;
}

#[tokio::test]
async fn the_audit_finds_split_atomic_groups() {
    let env = TestEnv::new().await;
    let worker = env.start_worker().await;
    let mut load = Load::groups(&env, 1, 60).await;
    load.publish(&env).await;
    let collected = collect(&env, &load, vec![worker]).await;
    let count = collected.compare_with_model(&load, &env.db).await;
    assert!(count.is_clean(), "{}", count.describe());

    for metadata in [r#"{"index": "99"}"#, r#"{"reason": "NOT_A_USAGE"}"#] {
        let statement = format!(
            "UPDATE revertd.outcomes SET refusal_metadata = refusal_metadata || '{metadata}' \
             WHERE id = (SELECT id FROM revertd.outcomes WHERE refusal = 'GROUP_REFUSED' LIMIT 1)"
        );
        let count = tampered(&env, &load, &collected, &statement).await;
        assert!(count.differing > 0, "{statement}: {count:?}");
    }
    let statement = "UPDATE revertd.outcomes SET refusal_metadata = NULL, \
         refusal = 'NOT_A_USAGE' WHERE id = \
         (SELECT id FROM revertd.outcomes WHERE refusal = 'GROUP_REFUSED' LIMIT 1)";
    let count = tampered(&env, &load, &collected, statement).await;
    assert!(count.differing > 0, "{count:?}");

    // Groups that were decided request by request are split, if they count as atomic.
    for sent in &mut load.requests {
        if let RequestKind::Group(group) = &mut sent.kind {
            group.atomic = true;
        }
    }
    let count = collected.compare_with_model(&load, &env.db).await;
    assert!(count.twice > 0, "{count:?}");
    env.teardown().await;
}

fn column(count: &AuditResult, name: &str) -> usize {
    match name {
        "lost" => count.lost,
        "twice" => count.twice,
        "unanswered" => count.unanswered,
        _ => count.differing,
    }
}
