//! `revertd events republish`: the events of stored outcomes again, byte for byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::*;

fn republish(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let all = [&["events", "republish"], arguments].concat();
    let output = env.command(&all).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

/// An outcome of each kind that is stored, and its event by the event's id. Two are another
/// client's.
async fn everything(env: &TestEnv, events: &mut Mailbox) -> BTreeMap<String, Message> {
    let publisher = env.publisher().await;
    let customer = env.customer().await;
    let account = customer.account;
    let mut usages = Vec::new();
    for _ in 0..5 {
        usages.push(env.usage(account, 20).await);
    }
    let purchase = env.purchase(account, 100).await;
    let old = format!(
        "UPDATE billing_transactions SET created_at = now() - interval '2 hours' WHERE id = '{}'",
        usages[4]
    );
    env.sql(&old).await;
    let revert = Uuid::new_v5(
        &ledger::NAMESPACE,
        format!("{}:0:{account}", usages[0]).as_bytes(),
    );
    let plain = |usage: Uuid, amount: i64| Request::revert(account, usage, amount);
    let named = json!({"org_id": customer.org, "usage_id": usages[1], "amount": "7",
        "reason": "Grüße, \
        \"Ω\" \\ 🦀"});
    let nameless = json!({"billing_id": account, "usage_id": usages[2], "amount": 1});
    let mut by_id = BTreeMap::new();
    for (request, verdict) in [
        (plain(usages[0], 20).id("first"), "usage.reverted"),
        (Request::json(&named).id("Ω"), "usage.reverted"),
        (Request::json(&nameless), "usage.reverted"),
        (plain(usages[3], 5).id("first"), "REQUEST_ID_REUSED"),
        (plain(Uuid::new_v4(), 5).single_attempt(), "USAGE_NOT_FOUND"),
        (plain(revert, 5), "REVERT_OF_REVERT"),
        (plain(purchase, 5), "NOT_A_USAGE"),
        (plain(usages[4], 5), "REVERT_WINDOW_CLOSED"),
        (plain(usages[0], 5), "ALREADY_REVERTED"),
        (plain(usages[3], 21), "AMOUNT_EXCEEDS_USAGE"),
    ] {
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), verdict);
        by_id.insert(id(&event), event);
    }
    for request in [plain(usages[3], 4), plain(usages[1], 4)] {
        publisher.publish(request.clone()).await;
        let event = events.answer(&request).await;
        by_id.insert(id(&event), event);
    }
    // Refusals of rows 1 to 5 are not stored.
    let stranger = Request::revert(Uuid::new_v4(), usages[3], 1);
    env.publish(&stranger).await;
    assert_eq!(
        events.answer(&stranger).await.verdict(),
        "BILLING_ACCOUNT_NOT_FOUND"
    );
    by_id
}

fn id(event: &Message) -> String {
    event.json()["id"].as_str().expect("text").to_owned()
}

/// The published events in their order, once the program is done.
async fn receive_events(env: &TestEnv, events: &mut Mailbox, count: usize) -> Vec<Message> {
    let letters = events.take(count).await;
    assert_eq!(env.depth(&env.name("replies")).await, 0);
    letters
}

#[tokio::test]
async fn every_stored_event_is_republished_byte_for_byte() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("REVERT__MAX_AGE", "1h")]).await;
    let mut events = env.events().await;
    let published = everything(&env, &mut events).await;
    assert!(worker.stop().await.success());
    assert_eq!(published.len(), 12);
    let (status, out, stderr) = republish(&env, &["--yes", "--output", "json"]);
    let mut result: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{stderr}"));
    let keys = result["routing_keys"].take();
    let mut under = std::collections::BTreeMap::new();
    for event in published.values() {
        *under.entry(event.routing_key.clone()).or_insert(0) += 1;
    }
    assert_eq!(keys, json!(under));
    let expected = json!({"published": true, "usage.reverted": 4, "usage.revert.rejected": 8,
        "unroutable": 0, "untold": 0,
        "routing_keys": null, "of_further_keys": 0});
    assert_eq!((status, result), (0, expected));
    let again = receive_events(&env, &mut events, 12).await;
    let mut times = Vec::new();
    for event in &again {
        let first = published.get(&id(event)).expect("a known event");
        assert_eq!(
            String::from_utf8_lossy(&event.body),
            String::from_utf8_lossy(&first.body)
        );
        assert_eq!(event.routing_key, first.routing_key);
        // The request's correlation id is not stored: the message id replaces it.
        let id = event.json()["data"]["request_id"].as_str().map(Into::into);
        assert_eq!(*event.properties.correlation_id(), id);
        let without = |letter: &Message| letter.properties.clone().with_correlation_id("".into());
        assert_eq!(without(event), without(first));
        times.push(event.json()["time"].as_str().expect("text").to_owned());
    }
    assert!(times.is_sorted(), "{times:?}");
    env.teardown().await;
}

#[tokio::test]
async fn republish_filters_and_requires_yes() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("REVERT__MAX_AGE", "1h")]).await;
    let mut events = env.events().await;
    let published = everything(&env, &mut events).await;
    assert!(worker.stop().await.success());
    let (status, out, stderr) = republish(&env, &[]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(stderr.contains("add --yes"), "{stderr}");
    let (status, out, _) = republish(&env, &["--dry-run"]);
    let line = "would publish 12 events: 4 usage.reverted, 8 usage.revert.rejected\n";
    assert_eq!((status, out.as_str()), (0, line));
    assert_eq!(env.depth(&env.name("replies")).await, 0, "nothing yet");

    let any = published.values().next().expect("some").json();
    let org = any["data"]["org_id"].as_str().expect("text").to_owned();
    let elsewhere = Uuid::new_v4().to_string();
    let middle =
        "SELECT to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
        FROM revertd.outcomes ORDER BY decided_at OFFSET 5 LIMIT 1";
    let middle: String = env.db.query_one(middle, &[]).await.expect("read").get(0);
    for (filter, count) in [
        (&["--client", "publisher"][..], 2),
        (&["--request", "first"], 2),
        (&["--request", "first", "--client", "publisher"], 0),
        (&["--org", &org, "--rate", "100"], 12),
        (&["--org", &elsewhere], 0),
        (&["--since", &middle], 7),
        (&["--until", &middle], 5),
        (&["--since", "1h"], 12),
        (&["--until", "1h"], 0),
    ] {
        let (status, out, stderr) = republish(&env, &[filter, &["--yes"]].concat());
        assert_eq!(status, 0, "{filter:?}: {stderr}");
        assert!(
            out.contains(&format!(" {count} events")),
            "{filter:?}: {out}"
        );
        for event in receive_events(&env, &mut events, count).await {
            assert_eq!(event.body, published[&id(&event)].body);
        }
    }
    let (status, _, stderr) = republish(&env, &["--since", "soon"]);
    assert!(status == 2 && stderr.contains("--help"), "{stderr}");

    // No queue is bound, and the command says so.
    let queue = env.name("replies");
    let delete = lapin::options::QueueDeleteOptions::default();
    let deleted = env
        .channel
        .queue_delete(queue.as_str().into(), delete)
        .await;
    deleted.expect("deleted");
    let (status, _, stderr) = republish(&env, &["--yes"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("no queue is bound for 12 of them"),
        "{stderr}"
    );
    env.teardown().await;
}
