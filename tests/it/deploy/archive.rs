//! Outcomes are archived as docs/operations/retention.md says, and no usage can be reverted twice
//! for it.

use serde_json::json;
use uuid::Uuid;

use crate::support::*;

/// config/archive-outcomes.sql, run as psql would with `older_than` 400 days.
async fn archive(env: &TestEnv) {
    let script = include_str!("../../../config/archive-outcomes.sql")
        .replace(":\"ledger\"", "public")
        .replace(":older_than", "interval '400 days'");
    // The call commits by itself, so it can't stand in one message with the rest.
    let (before, call) = script.split_once("\nCALL ").expect("it calls");
    env.sql(before).await;
    env.sql(&format!("CALL {call}")).await;
}

/// As if all of a usage had happened long ago, its entries with its outcomes.
async fn age(env: &TestEnv, usage: Uuid) {
    let then = "date_trunc('day', now()) - interval '500 days'";
    env.sql(&format!(
        "UPDATE revertd.outcomes SET decided_at = {then} WHERE usage_id = '{usage}';
             UPDATE billing_transactions SET created_at = {then}
                 WHERE metadata ->> 'revert_request_using' = '{usage}'"
    ))
    .await;
}

/// How many outcomes of a usage are in place, and how many in the archive.
async fn kept(env: &TestEnv, usage: Uuid) -> (i64, i64) {
    let of = async |table: &str| {
        let query = format!("SELECT count(*) FROM revertd.{table} WHERE usage_id = '{usage}'");
        env.count(&query).await
    };
    (of("outcomes").await, of("outcomes_archive").await)
}

/// Asks, and gives the verdict; on a refusal for an earlier entry, that entry's id.
async fn ask(env: &TestEnv, events: &mut Mailbox, request: &Request) -> (String, Option<String>) {
    env.publish(request).await;
    let event = events.answer(request).await;
    let named = &event.json()["data"]["error"]["details"][0]["metadata"]["transaction_id"];
    (event.verdict(), named.as_str().map(str::to_owned))
}

#[tokio::test]
async fn an_archived_outcome_leaves_a_usage_that_is_refused() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let account = customer.account;
    let mut usages = Vec::new();
    for (name, amount) in [
        ("part", 5),
        ("whole", 20),
        ("recent", 20),
        ("removed", 20),
        ("nameless", 5),
    ] {
        let usage = env.usage(account, 20).await;
        let request = match name {
            "nameless" => {
                Request::json(&json!({"billing_id": account, "usage_id": usage, "amount": amount}))
            }
            _ => Request::revert(account, usage, amount).id(name),
        };
        let request = request.correlated(name);
        assert_eq!(ask(&env, &mut events, &request).await.0, "usage.reverted");
        if name != "recent" {
            age(&env, usage).await;
        }
        usages.push((name, usage, request));
    }
    // A refusal as old as the rest, and a usage whose reverting entries were removed.
    let [(_, part, _), _, _, (_, removed, _), _] = &usages[..] else {
        panic!("five usages")
    };
    let refused = Request::revert(account, *part, 1)
        .id("refused")
        .correlated("refused");
    assert_eq!(ask(&env, &mut events, &refused).await.0, "ALREADY_REVERTED");
    age(&env, *part).await;
    let legs = format!(
        "DELETE FROM billing_transactions WHERE metadata ->> 'revert_request_using' = '{removed}'"
    );
    env.sql(&legs).await;
    let balance = env.balance(account).await;

    for _ in 0..2 {
        archive(&env).await;
        for (name, usage, _) in &usages {
            let expected = match *name {
                "part" => (1, 1),
                "recent" | "removed" => (1, 0),
                _ => (0, 1),
            };
            assert_eq!(kept(&env, *usage).await, expected, "{name}");
        }
    }
    for (name, usage, request) in &usages {
        let again = ask(&env, &mut events, request).await;
        let other = Request::revert(account, *usage, 1).correlated("other");
        let other = ask(&env, &mut events, &other).await;
        let entry = env
            .reverts(*usage)
            .await
            .into_iter()
            .find(|leg| leg.account == Some(account));
        let entry = entry.map(|leg| leg.id.to_string());
        match *name {
            "recent" | "removed" => assert_eq!(again, ("usage.reverted".into(), None), "{name}"),
            _ => assert_eq!(again, ("ALREADY_REVERTED".into(), entry.clone()), "{name}"),
        }
        assert_eq!(other.0, "ALREADY_REVERTED", "{name}");
        assert!(entry.is_none() || other.1 == entry, "{name}");
    }
    assert_eq!(ask(&env, &mut events, &refused).await.0, "ALREADY_REVERTED");
    assert_eq!(env.balance(account).await, balance);
    env.teardown().await;
}

#[tokio::test]
async fn under_cumulative_only_whole_reverts_are_archived() {
    let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
    let mut events = env.events().await;
    let customer = env.customer().await;
    let account = customer.account;
    let (whole, part) = (env.usage(account, 20).await, env.usage(account, 20).await);
    let ask_for = |usage: Uuid, amount: i64, id: &str| {
        Request::revert(account, usage, amount)
            .id(id)
            .correlated(id)
    };
    let first = [
        ask_for(whole, 5, "w5"),
        ask_for(whole, 15, "w15"),
        ask_for(part, 5, "p5"),
        ask_for(part, 6, "p6"),
    ];
    for request in &first {
        assert_eq!(ask(&env, &mut events, request).await.0, "usage.reverted");
    }
    age(&env, whole).await;
    age(&env, part).await;
    let balance = env.balance(account).await;
    archive(&env).await;
    assert_eq!(kept(&env, whole).await, (0, 2));
    assert_eq!(kept(&env, part).await, (2, 0));
    for (request, verdict) in first.iter().zip([
        "AMOUNT_EXCEEDS_USAGE",
        "AMOUNT_EXCEEDS_USAGE",
        "usage.reverted",
        "usage.reverted",
    ]) {
        assert_eq!(ask(&env, &mut events, request).await.0, verdict);
    }
    assert_eq!(env.balance(account).await, balance);
    // The chain goes on where it was.
    let rest = ask_for(part, 9, "p9");
    assert_eq!(ask(&env, &mut events, &rest).await.0, "usage.reverted");
    assert_eq!(env.balance(account).await, balance + 9);
    env.teardown().await;
}

#[tokio::test]
async fn status_and_republish_see_archived_outcomes() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let account = env.customer().await.account;
    let usage = env.usage(account, 20).await;
    let request = Request::revert(account, usage, 20);
    assert_eq!(ask(&env, &mut events, &request).await.0, "usage.reverted");
    assert!(worker.stop().await.success());
    age(&env, usage).await;
    let reader = format!("reader_{}", env.database);
    env.sql(&format!(
        "CREATE ROLE \"{reader}\"; GRANT SELECT ON revertd.outcomes TO \"{reader}\""
    ))
    .await;
    archive(&env).await;
    assert_eq!(kept(&env, usage).await, (0, 1));

    let verify = || {
        let output = env.command(&["verify"]).output().expect("runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code(), text)
    };
    let sound = "1 outcomes, 2 legs of reverts: 0 violations, 0 warnings\n";
    assert_eq!(verify(), (Some(0), sound.into()));
    let mut status = env.command(&["status", &usage.to_string(), "--no-queues"]);
    let output = status.output().expect("runs").stdout;
    let text = String::from_utf8(output).expect("UTF-8");
    assert!(text.contains("20 of 20 given back, 0 remain"), "{text}");
    assert!(text.contains("archived: "), "{text}");
    assert!(!text.contains("another writer"), "{text}");

    let may_read = format!(
        "SELECT count(*) FROM pg_class WHERE oid = 'revertd.outcomes_archive'::regclass
         AND has_table_privilege('{reader}', oid, 'SELECT')"
    );
    assert_eq!(env.count(&may_read).await, 1);
    env.sql(&format!(
        "DELETE FROM billing_transactions WHERE type = 'credit'
                AND metadata ->> 'revert_request_using' = '{usage}';
             DROP OWNED BY \"{reader}\"; DROP ROLE \"{reader}\""
    ))
    .await;
    let (code, text) = verify();
    assert_eq!(code, Some(1));
    assert!(text.starts_with("CUSTOMER_LEG_MISSING outcome "), "{text}");
    env.teardown().await;
}
