//! Groups in the operators' tools: each request is found, counted, logged and republished by its
//! own id; a group that waits or is dead-lettered as a whole is one message.

use serde_json::{Value, json};
use uuid::Uuid;

use super::dead_letters::setup::{acted, dead_letters, env_without_worker, listed};
use crate::support::dead_letters::DeadLetter;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

fn group(id: &str, account: Uuid, atomic: bool, requests: &[Value]) -> Request {
    let body = json!({"billing_id": account, "atomic": atomic, "requests": requests});
    Request::json(&body).id(id)
}

fn revert(usage: Uuid, amount: i64) -> Value {
    json!({"usage_id": usage, "amount": amount})
}

fn run(env: &TestEnv, arguments: &[&str]) -> String {
    let output = env.command(arguments).output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Until the rule is dropped, an entry of 666 fails.
const RULE: &str = "ALTER TABLE billing_transactions ADD CONSTRAINT test_rule CHECK (type <> \
    'credit' OR amount <> 666) NOT VALID";
const NO_RULE: &str = "ALTER TABLE billing_transactions DROP CONSTRAINT test_rule";

#[tokio::test]
async fn status_finds_the_requests_of_a_waiting_group() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "60s")]).await;
    let customer = env.customer().await;
    let (usage, late) = (env.usage(customer.account, 20).await, Uuid::new_v4());
    let mut named = revert(late, 5);
    named["request_id"] = "own".into();
    let requests = [revert(usage, 5), named];
    env.publish(&group("job", customer.account, true, &requests))
        .await;
    let rung = env.name("retry.1m");
    eventually("the group waits", async || env.depth(&rung).await == 1).await;
    worker.stop().await;
    let first = format!("request job/0 of client -, in group job, request 0, waits on {rung}");
    let second = format!("request own of client -, in group job, request 1, waits on {rung}");
    let whole = format!("group job of client -, 2 requests in all, waits on {rung}");
    let usages = [usage.to_string(), late.to_string()];
    for (arguments, found) in [
        (&["status", &usages[0]][..], &first),
        (&["status", &usages[1]], &second),
        (&["status", "--request", "job/0"], &first),
        (&["status", "--request", "own"], &second),
        (&["status", "--request", "job"], &whole),
    ] {
        let told = run(&env, arguments);
        assert!(told.contains(found), "{arguments:?}: {told}");
        assert_eq!(told.matches(" waits on ").count(), 1, "{told}");
    }
    let told = run(&env, &["status", "--request", "own", "--output", "json"]);
    let shown: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        shown["waiting"][0]["group"],
        json!({"id": "job", "index": 1})
    );
    let other = ["status", "--request", "job/2"];
    let output = env.command(&other).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "the group has two requests");

    let requests = [revert(usage, 4)];
    let body = group("dead", customer.account, true, &requests).body;
    env.put_dead_letters(&[DeadLetter::of(&body).id("dead")])
        .await;
    let told = run(&env, &["status", "--request", "dead/0"]);
    let found = "request dead/0 of client render, in group dead, request 0, waits among the dead";
    assert!(told.contains(found), "{told}");
    env.teardown().await;
}

#[tokio::test]
async fn dead_letters_of_groups_match_by_any_request() {
    let env = env_without_worker().await;
    let customer = env.customer().await;
    let usages = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let mut named = revert(usages[1], 5);
    named["request_id"] = "own".into();
    named["org_id"] = json!(customer.org);
    let requests = [revert(usages[0], 5), named];
    let body = group("job", customer.account, true, &requests).body;
    env.put_dead_letters(&[
        DeadLetter::of(&body).id("job"),
        DeadLetter::new(customer.account, usages[2], 5).id("alone"),
    ])
    .await;
    let (org, usage) = (customer.org.to_string(), usages.map(|it| it.to_string()));
    for (filter, fitting) in [
        (&["--usage", &usage[0]][..], &["job"][..]),
        (&["--usage", &usage[1]], &["job"]),
        (&["--usage", &usage[2]], &["alone"]),
        (&["--org", &org], &["job"]),
        // One request must match both.
        (&["--org", &org, "--usage", &usage[0]], &[]),
        (&["--id", "own"], &["job"]),
        (&["--id", "job/0"], &["job"]),
        (&["--id", "job/1"], &[]),
    ] {
        let found = listed(&env, filter);
        let ids: Vec<_> = found.iter().map(|it| &it["message_id"]).collect();
        assert_eq!(ids, fitting, "{filter:?}");
    }
    let shown = &listed(&env, &["--id", "job"])[0];
    assert_eq!(shown["group_size"], 2);
    assert_eq!(shown["usage_id"], Value::Null, "they have several");
    let (_, stdout, _) = dead_letters(&env, &["list"]);
    assert!(stdout.contains("group of 2 requests"), "{stdout}");
    let (status, stdout, stderr) = dead_letters(&env, &["show", "own"]);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.contains("requests 2, a group"), "{stdout}");
    let done = acted(&env, &["discard", "own", "--why", "it is moot"]);
    assert_eq!(done["discarded"], 1);
    let noted = "SELECT count(*) FROM revertd.intervention_letters WHERE message_id = 'job' AND \
        usage_id IS NULL AND client = 'render'";
    assert_eq!(env.count(noted).await, 1);
    assert_eq!(env.depth(&env.name("dead")).await, 1);
    env.teardown().await;
}

#[tokio::test]
async fn a_replayed_group_is_published_as_it_was() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = [
        env.usage(customer.account, 666).await,
        env.usage(customer.account, 20).await,
    ];
    env.sql(RULE).await;
    let requests = [revert(usages[0], 666), revert(usages[1], 5)];
    let request = group("job", customer.account, true, &requests);
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "RETRIES_EXHAUSTED");
    let log = worker.log();
    let told = log.lines().find(|line| line.contains("dead_lettered"));
    assert!(told.is_some_and(|line| line.contains("job")), "{log}");
    worker.stop().await;
    env.sql(NO_RULE).await;
    let done = acted(&env, &["replay", "job/1", "--why", "the rule is gone"]);
    assert_eq!(done["replayed"], 1);
    let _worker = env.start_worker().await;
    let batch = events.answer(&request).await;
    assert_eq!(batch.json().as_array().map(Vec::len), Some(2));
    assert_eq!(batch.routing_key, format!("result.{}", customer.org));
    for usage in usages {
        assert_eq!(env.reverts(usage).await.len(), 2, "both legs");
    }
    env.teardown().await;
}

#[tokio::test]
async fn events_of_a_group_are_republished_one_by_one() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usages = [
        env.usage(customer.account, 20).await,
        env.usage(customer.account, 20).await,
    ];
    let requests = [revert(usages[0], 5), revert(usages[1], 21)];
    let mut originals = Vec::new();
    for (id, atomic) in [("whole", true), ("each", false)] {
        let request = group(id, customer.account, atomic, &requests);
        env.publish(&request).await;
        let mut count = 0;
        while count < 2 {
            let Value::Array(batch) = events.answer(&request).await.json() else {
                panic!("no batch");
            };
            count += batch.len();
            originals.extend(batch);
        }
    }
    assert!(worker.stop().await.success());
    let told = run(&env, &["verify"]);
    assert!(
        told.contains("4 outcomes, 2 legs of reverts: 0 violations, 0 warnings"),
        "{told}"
    );
    run(&env, &["events", "republish", "--since", "1h", "--yes"]);
    let again = events.take(4).await;
    let text = |event: &Value| event.to_string();
    let mut again: Vec<_> = again.iter().map(|event| text(&event.json())).collect();
    let mut originals: Vec<_> = originals.iter().map(text).collect();
    again.sort();
    originals.sort();
    assert_eq!(again, originals);
    assert!(
        originals
            .iter()
            .any(|event| event.contains("GROUP_REFUSED"))
    );
    // The id of a group finds the requests whose ids follow from it.
    let told = run(&env, &["status", "--request", "whole"]);
    for line in [
        "request whole/0 of client -",
        "request whole/1 of client -",
        "usage.revert.rejected: GROUP_REFUSED: another request of the atomic group was refused",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn groups_and_their_requests_are_counted() {
    let mut env = TestEnv::new().await;
    env.set(LISTEN.0, LISTEN.1);
    env.set("AUTHORIZATION__MODE", "grants");
    let mut worker = env.start_worker().await;
    let telemetry = Telemetry::of(&mut worker).await;
    let customer = env.customer().await;
    let publisher = env.publisher().await;
    let granted = env.customer().await;
    run(
        &env,
        &["grants", "add", &publisher.user, &granted.org.to_string()],
    );
    let usages = [
        env.usage(granted.account, 20).await,
        env.usage(granted.account, 666).await,
    ];
    env.sql(RULE).await;
    let mut denied = revert(Uuid::new_v4(), 1);
    denied["billing_id"] = json!(customer.account);
    let requests = [
        revert(usages[0], 5),
        revert(usages[0], 21),
        denied,
        revert(usages[1], 666),
    ];
    let request = group("job", granted.account, false, &requests);
    publisher.publish(request.clone()).await;
    worker.logged("dead-lettered: ").await;
    telemetry.shows("revertd_in_flight_messages", &[], 0).await;
    let page = telemetry.metrics().await;
    for (outcome, reason, count) in [
        ("reverted", "", 1),
        ("rejected", "ORG_NOT_GRANTED", 1),
        ("dead_lettered", "RETRIES_EXHAUSTED", 1),
    ] {
        let labels = [("outcome", outcome), ("reason", reason)];
        assert_eq!(
            page.count("revertd_requests_total", &labels),
            count,
            "{outcome} {reason}"
        );
    }
    assert_eq!(page.count("revertd_requests_total", &[]), 4);
    assert_eq!(page.count("revertd_groups_total", &[]), 1);
    assert_eq!(page.count("revertd_group_requests_total", &[]), 4);
    // Each line of the log names the request, not its group.
    let log = worker.log();
    for (code, id) in [("request_denied", "job/2"), ("dead_lettered", "job/3")] {
        let told = log.lines().find(|line| line.contains(code));
        assert!(told.is_some_and(|line| line.contains(id)), "{code}: {log}");
    }
    drop(worker);
    env.teardown().await;
}
