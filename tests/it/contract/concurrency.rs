//! Several processes that decide requests on one usage.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn two_racing_processes_revert_a_usage_once() {
    for (policy, each, applied) in [("once", 20, 1), ("cumulative", 3, 6)] {
        let mut env = TestEnv::new().await;
        env.set("REVERT__POLICY", policy);
        env.set("WORKER__BATCH_MAX", "3");
        let mut workers = [env.start_worker().await, env.start_worker().await];
        let (mut events, customer) = (env.events().await, env.customer().await);
        let mut requests = Vec::new();
        let mut usages = Vec::new();
        for _ in 0..12 {
            usages.push(env.usage(customer.account, 20).await);
        }
        for round in 0..12 {
            for usage in &usages {
                let usage_id = match round % 2 {
                    0 => usage.to_string(),
                    _ => usage.to_string().to_uppercase(),
                };
                let body =
                    json!({"billing_id": customer.account, "usage_id": usage_id, "amount": each});
                let request = Request::json(&body).id(&uuid::Uuid::new_v4().to_string());
                env.publish(&request).await;
                requests.push(request);
            }
        }
        let mut reverted = 0;
        for request in &requests {
            let event = events.answer(request).await;
            reverted += usize::from(event.verdict() == "usage.reverted");
        }
        assert_eq!(reverted, usages.len() * applied, "{policy}");
        for usage in usages {
            assert_eq!(env.reverts(usage).await.len(), 2 * applied, "{policy}");
        }
        for worker in &mut workers {
            assert!(worker.stop().await.success());
            let log = worker.log();
            assert!(
                log.contains("retried=0 "),
                "decided at once, whoever was first: {log}"
            );
        }
        env.assert_ledger_is_sound().await;
        env.teardown().await;
    }
}

#[tokio::test]
async fn one_id_sent_to_two_processes_is_one_request() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "1");
    let _one = env.start_worker().await;
    let _two = env.start_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut pairs = Vec::new();
    for index in 0..50 {
        let id = format!("pair-{index}");
        let mut pair = Vec::new();
        for _ in 0..2 {
            let usage = env.usage(customer.account, 20).await;
            let request = Request::revert(customer.account, usage, 5).id(&id);
            env.publish(&request).await;
            pair.push(request);
        }
        pairs.push(pair);
    }
    for pair in pairs {
        let mut verdicts = [
            events.answer(&pair[0]).await.verdict(),
            events.answer(&pair[1]).await.verdict(),
        ];
        verdicts.sort();
        assert_eq!(verdicts, ["REQUEST_ID_REUSED", "usage.reverted"]);
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

/// Another worker that has taken part of a usage, in the middle of its commit.
async fn taking(
    env: &TestEnv,
    account: uuid::Uuid,
    usage: uuid::Uuid,
    amount: i64,
) -> tokio_postgres::Client {
    let other = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let ids = [0, 1, 2].map(|_| uuid::Uuid::new_v4());
    other
        .batch_execute(&format!(
            "BEGIN; INSERT INTO revertd.outcomes (id, content, org_id, account_id, decided_at, \
                client, \
             usage_id, amount, usage_amount, reverted_before, transaction_id, \
             platform_transaction_id, \
             revert_no, cumulative) VALUES ('{0}', '{0}', '{0}', '{account}', now(), '', \
             '{usage}', {amount}, 20, 0, \
             '{1}', '{2}', 0, true); \
             INSERT INTO billing_transactions (id, account_id, type, amount, metadata) VALUES \
             ('{1}', '{account}', 'credit', {amount}, \
             '{{\"revert_request_using\": \"{usage}\"}}'), \
             ('{2}', uuid_nil(), 'debit', {amount}, '{{\"revert_request_using\": \"{usage}\"}}')",
            ids[0], ids[1], ids[2]
        ))
        .await
        .expect("inserted");
    other
}

#[tokio::test]
async fn a_refusal_names_only_committed_amounts() {
    let mut env = TestEnv::in_order().await;
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    env.set("REVERT__POLICY", "cumulative");
    env.start_worker().await.stop().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (account, usage) = (customer.account, env.usage(customer.account, 20).await);
    let other = taking(&env, account, usage, 6).await;
    // 15 would fit, and 10 then not; but 15 loses to the other's 6, and 10 fits after all.
    let requests = [15, 10].map(|amount| Request::revert(account, usage, amount));
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'revertd'";
    eventually("the worker waits for the other", async || {
        env.count(waiting).await == 1
    })
    .await;
    other.batch_execute("COMMIT").await.expect("committed");
    let refused = events.answer(&requests[0]).await;
    assert_eq!(refused.verdict(), "AMOUNT_EXCEEDS_USAGE");
    let metadata = &refused.json()["data"]["error"]["details"][0]["metadata"];
    assert_eq!(metadata["remaining"], "14");
    let applied = events.answer(&requests[1]).await.json();
    assert_eq!(applied["data"]["remaining"], "4");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_batch_follows_the_decision_of_another_worker() {
    let mut env = TestEnv::in_order().await;
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    env.set("REVERT__POLICY", "cumulative");
    env.start_worker().await.stop().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (account, usage) = (customer.account, env.usage(customer.account, 20).await);
    let other = taking(&env, account, usage, 3).await;
    let requests = [5, 5, 8].map(|amount| Request::revert(account, usage, amount));
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'revertd'";
    eventually("the worker waits for the other", async || {
        env.count(waiting).await == 1
    })
    .await;
    other.batch_execute("COMMIT").await.expect("committed");
    let mut told = Vec::new();
    for request in &requests {
        let event = events.answer(request).await.json();
        told.push(event["data"]["reverted_total"].as_str().map(str::to_owned));
    }
    assert_eq!(told, [Some("8".into()), Some("13".into()), None]);
    let left = Request::revert(account, usage, 7);
    env.publish(&left).await;
    assert_eq!(
        events.answer(&left).await.json()["data"]["remaining"],
        "0",
        "nothing is forgotten"
    );
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_batch_keeps_its_order_beside_another_worker() {
    let mut env = TestEnv::in_order().await;
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    env.set("REVERT__POLICY", "cumulative");
    env.start_worker().await.stop().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (account, usage) = (customer.account, env.usage(customer.account, 20).await);
    let other = taking(&env, account, usage, 5).await;
    let requests = [5, 5, 8].map(|amount| Request::revert(account, usage, amount));
    for request in &requests {
        env.publish(request).await;
    }
    let _worker = env.start_worker().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'revertd'";
    eventually("the worker waits for the other", async || {
        env.count(waiting).await == 1
    })
    .await;
    other.batch_execute("COMMIT").await.expect("committed");
    let mut told = Vec::new();
    for request in &requests {
        let event = events.answer(request).await.json();
        told.push(event["data"]["reverted_total"].as_str().map(str::to_owned));
    }
    // The second, as the second of its usage, would stand as well with the other's revert before
    // it.
    assert_eq!(told, [Some("10".into()), Some("15".into()), None]);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn constraints_refuse_rows_that_break_the_rules() {
    let env = TestEnv::new().await;
    let insert = |values: &str| {
        format!(
            "INSERT INTO revertd.outcomes (id, content, org_id, account_id, decided_at, client, \
                usage_id, \
             amount, usage_amount, reverted_before, transaction_id, platform_transaction_id, \
             revert_no, \
             cumulative) SELECT uuid_generate_v4(), uuid_nil(), uuid_nil(), uuid_nil(), now(), '', \
             v.* \
             FROM (VALUES ({values})) v"
        )
    };
    let one = "uuid_nil(), 5, 20, 0, uuid_generate_v4(), uuid_generate_v4(), 0, true";
    env.sql(&insert(one)).await;
    for (values, constraint) in [
        (one, "outcomes_revert_no"),
        (
            "uuid_nil(), 5, 20, 4, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_chain",
        ),
        (
            "uuid_nil(), 5, 20, 6, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_chain",
        ),
        (
            "uuid_nil(), 5, 30, 5, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_chain",
        ),
        (
            "uuid_nil(), 5, 20, 5, uuid_generate_v4(), uuid_generate_v4(), 2, true",
            "outcomes_chain",
        ),
        (
            "uuid_nil(), 16, 20, 5, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_within_usage",
        ),
        (
            "uuid_nil(), 5, 20, 5, uuid_generate_v4(), uuid_generate_v4(), 1, false",
            "outcomes_once",
        ),
        (
            "uuid_nil(), 0, 20, 5, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_amount_positive",
        ),
        (
            "uuid_nil(), 5, 20, 5, uuid_generate_v4(), NULL::uuid, 1, true",
            "outcomes_legs_belong_together",
        ),
        (
            "uuid_nil(), 5, 20, 5, uuid_nil(), uuid_nil(), 1, true",
            "outcomes_legs_belong_together",
        ),
        (
            "uuid_nil(), 5, NULL::bigint, 5, uuid_generate_v4(), uuid_generate_v4(), 1, true",
            "outcomes_within_usage",
        ),
    ] {
        let error = env
            .db
            .batch_execute(&insert(values))
            .await
            .expect_err(values);
        let violated = error
            .as_db_error()
            .and_then(|error| error.constraint().map(str::to_owned));
        assert_eq!(violated.as_deref(), Some(constraint), "{values}");
    }
    env.sql(&insert(
        "uuid_nil(), 15, 20, 5, uuid_generate_v4(), uuid_generate_v4(), 1, true",
    ))
    .await;
    env.teardown().await;
}
