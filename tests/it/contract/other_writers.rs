//! Rows of other writers that name a usage: what is counted of them, and what is not.

use serde_json::json;
use uuid::Uuid;

use super::batches::{decide, request};
use crate::support::ledger::NAMESPACE;
use crate::support::*;

/// A usage of 20 on an account of its own, and the ledger's policy.
async fn usage_of(env: &mut TestEnv, policy: &str, amount: i64) -> (Uuid, Uuid) {
    env.set("REVERT__POLICY", policy);
    let account = env.customer().await.account;
    (account, env.usage(account, amount).await)
}

/// The id that Frontier gives the n-th entry on a usage.
fn entry_id(usage: Uuid, n: u32, account: Uuid) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{usage}:{n}:{account}").as_bytes())
}

/// A debit of a reporter who set the metadata so that it names a usage.
async fn debit_that_names(env: &TestEnv, account: Uuid, usage: Uuid) {
    let metadata = json!({"revert_request_using": usage});
    let id = Uuid::new_v4();
    env.entry(id, account, "debit", "api.usage", 1, &metadata)
        .await;
}

/// Both legs of a revert as Frontier writes it, in a transaction of its own that is still open.
async fn frontier_reverting(
    env: &TestEnv,
    account: Uuid,
    usage: Uuid,
    n: u32,
    amount: i64,
) -> tokio_postgres::Client {
    let frontier = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let id = entry_id(usage, n, account);
    frontier
        .batch_execute(&format!(
            "BEGIN; INSERT INTO billing_transactions (id, account_id, type, source, amount, metadata) VALUES \
             ('{id}', '{account}', 'credit', 'system.revert.x', {amount}, '{{\"revert_request_using\": \"{usage}\"}}'), \
             (uuid_generate_v4(), uuid_nil(), 'debit', 'system.revert.x', {amount}, \
              '{{\"revert_request_using\": \"{usage}\"}}')"
        ))
        .await
        .expect("inserted");
    frontier
}

async fn set_created_at(env: &TestEnv, id: Uuid, time: &str) {
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = {time} WHERE id = '{id}'"
    ))
    .await;
}

/// What `revertd verify` finds.
fn verified(env: &TestEnv) -> Vec<String> {
    let output = env
        .command(&["verify", "--output", "json"])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let findings = told.lines().filter(|line| line.contains("\"code\""));
    findings.map(str::to_owned).collect()
}

/// What customers were given back of a usage.
async fn given_back(env: &TestEnv, usage: Uuid) -> i64 {
    let reverts = env.reverts(usage).await;
    let credits = reverts
        .iter()
        .filter(|row| row.kind.as_deref() == Some("credit"));
    credits.map(|row| row.amount).sum()
}

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
        // Whoever reports a usage chooses its id.
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
            "SELECT count(*) FROM billing_transactions r JOIN billing_transactions u ON u.id = '{usage}' \
             WHERE r.metadata ->> 'revert_request_using' = '{usage}' AND r.created_at = u.created_at"
        );
        assert_eq!(env.count(&dated).await, 2, "both legs, {ahead}");
    }
    assert_eq!(verified(&env), Vec::<String>::new());
    env.teardown().await;
}
