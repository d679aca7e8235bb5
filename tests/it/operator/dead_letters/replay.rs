//! `revertd dead-letters replay`: which dead letters become requests again.

use std::collections::BTreeSet;

use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};
use uuid::Uuid;

use super::setup::*;
use crate::support::dead_letters::DeadLetter;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

#[tokio::test]
async fn a_replay_is_decided_once_for_its_client() {
    let mut env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let (mut events, publisher) = (env.events().await, env.publisher().await);
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 666).await;
    let test_rule = "ALTER TABLE billing_transactions ADD CONSTRAINT test_rule CHECK (type <> \
        'credit' OR amount <> 666) NOT VALID";
    env.sql(test_rule).await;
    let request = Request::revert(customer.account, usage, 666).id("theirs");
    publisher.publish(request.clone()).await;
    assert_eq!(events.answer(&request).await.verdict(), "RETRIES_EXHAUSTED");
    env.sql("ALTER TABLE billing_transactions DROP CONSTRAINT test_rule")
        .await;
    worker.stop().await;

    let (status, stdout, stderr) = dead_letters(&env, &["replay", "--all", "--dry-run"]);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.ends_with("would replay 1 letter\n"), "{stdout}");
    assert_eq!(env.depth(&env.name("work")).await, 0);
    let done = acted(&env, &["replay", "theirs", "--why", "the rule is gone"]);
    assert_eq!((&done["replayed"], &done["left"]), (&json!(1), &json!({})));
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    // As it comes to the worker: of its client, on a new ladder.
    let mut waiting = env.mailbox(&env.name("work")).await;
    let letter = waiting.next().await;
    assert_eq!(
        letter.text_header("x-client").as_deref(),
        Some(publisher.user.as_str())
    );
    for header in [
        "x-attempts",
        "x-first-attempt-at",
        "x-error-reason",
        "x-error-code",
        "x-error-message",
    ] {
        assert_eq!(letter.header(header), None, "{header}");
    }
    assert_eq!(letter.body, request.body);
    drop(waiting);
    let replayed = Request {
        body: letter.body,
        properties: letter.properties,
    };
    env.set(LISTEN.0, LISTEN.1);
    let mut worker = env.start_worker().await;
    env.publish(&replayed).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "usage.reverted");
    let client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'publisher' AND message_id \
        = 'theirs'";
    assert_eq!(env.count(client).await, 1);
    // Once more is harmless.
    env.publish(&replayed).await;
    assert_eq!(events.answer(&request).await.body, event.body);
    let telemetry = Telemetry::of(&mut worker).await;
    for (of, count) in [("dead_letter", 2), ("outcome", 1)] {
        telemetry
            .shows("revertd_replays_total", &[("of", of)], count)
            .await;
    }
    let noted = "SELECT count(*) FROM revertd.interventions i JOIN revertd.intervention_letters l \
        ON l.intervention = i.id
        JOIN revertd.intervention_parts p USING (intervention, part)
        WHERE action = 'replay' AND done_by = 'alice' AND done_as = session_user AND why = 'the \
        rule is gone'
        AND chosen = '{\"ids\": [\"theirs\"]}' AND client = 'publisher' AND message_id = 'theirs'
        AND reason = 'RETRIES_EXHAUSTED'";
    assert_eq!(env.count(noted).await, 1);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_replay_leaves_malformed_and_unreadable_ones() {
    let env = env_without_worker().await;
    let (_, _, all) = mixed(&env).await;
    let done = acted(&env, &["replay", "--all"]);
    assert_eq!(done["replayed"], 4, "{done}");
    assert_eq!(done["left"], json!({"malformed": 1, "unreadable": 1}));
    assert_eq!(env.depth(&env.name("work")).await, 4);
    let left: BTreeSet<_> = listed(&env, &[])
        .iter()
        .map(|letter| letter["reason"].to_string())
        .collect();
    assert_eq!(left.len(), all - 4);
    let done = acted(
        &env,
        &[
            "replay",
            "--reason",
            "MALFORMED_REQUEST",
            "--include-malformed",
        ],
    );
    assert_eq!(done["replayed"], 1);
    // Of the broker's own properties, the expiration and x-death are not passed on.
    for letter in env.mailbox(&env.name("work")).await.take(5).await {
        assert_eq!(*letter.properties.expiration(), None);
        assert_eq!(letter.header("x-death"), None);
    }
    // Written by a worker under another login: this one can't say whose it is.
    let publisher = env.publisher().await;
    let foreign = Request::raw("{}")
        .header(
            "x-error-reason",
            lapin::types::AMQPValue::LongString("RETRIES_EXHAUSTED".into()),
        )
        .header(
            "x-client",
            lapin::types::AMQPValue::LongString("somebody".into()),
        );
    let properties = foreign
        .properties
        .with_user_id(publisher.user.as_str().into());
    let queue = env.name("dead");
    let publishing = publisher.channel.basic_publish(
        "".into(),
        queue.as_str().into(),
        BasicPublishOptions::default(),
        &foreign.body,
        properties,
    );
    publishing.await.expect("written").await.expect("confirmed");
    let done = acted(&env, &["replay", "--all"]);
    assert_eq!(
        done["left"],
        json!({"of_another_login": 1, "unreadable": 1})
    );
    assert_eq!(
        (&done["replayed"], &done["intervention"]),
        (&json!(0), &Value::Null)
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_replay_that_is_not_confirmed_leaves_dead_letters() {
    let env = env_without_worker().await;
    mixed(&env).await;
    let work = env.name("work");
    let deleting = env
        .channel
        .queue_delete(work.as_str().into(), QueueDeleteOptions::default());
    deleting.await.expect("deleted");
    let (status, stdout, stderr) = dead_letters(&env, &["replay", "--all", "--yes"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("no queue is bound") && stdout.starts_with("replayed no letters"),
        "{stdout}{stderr}"
    );
    eventually("all are back", async || {
        env.depth(&env.name("dead")).await == 6
    })
    .await;
    let unfinished = "SELECT count(*) FROM revertd.intervention_letters l WHERE NOT EXISTS (
        SELECT FROM revertd.intervention_parts p WHERE p.intervention = l.intervention AND p.part \
        = l.part)";
    assert_eq!(env.count(unfinished).await, 4);
    // Nothing is done that can't be noted.
    env.sql("DROP TABLE revertd.intervention_letters").await;
    env.start_worker().await.stop().await;
    let (status, _, stderr) = dead_letters(&env, &["replay", "--all", "--yes"]);
    assert_eq!((status, env.depth(&work).await), (1, 0), "{stderr}");
    env.teardown().await;
}

#[tokio::test]
async fn a_full_work_queue_stops_a_replay() {
    let mut env = TestEnv::new().await;
    env.set("TOPOLOGY__WORK_QUEUE_MAX_BYTES", "1000");
    env.start_worker().await.stop().await;
    let (customer, work) = (env.customer().await, env.name("work"));
    let queued: Vec<_> = (0..100)
        .map(|_| DeadLetter::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    env.put_dead_letters(&queued).await;
    // Until it says so: it takes a few more than its bound.
    loop {
        let publishing = env.channel.basic_publish(
            "".into(),
            work.as_str().into(),
            BasicPublishOptions::default(),
            &[b'x'; 500],
            BasicProperties::default(),
        );
        let confirm = publishing.await.expect("written").await;
        if let Confirmation::Nack(_) = confirm.expect("confirmed") {
            break;
        }
    }
    let (status, _, stderr) = dead_letters(&env, &["replay", "--all", "--yes"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("is full") && stderr.contains("--rate"),
        "{stderr}"
    );
    eventually("all are back", async || {
        env.depth(&env.name("dead")).await == 100
    })
    .await;
    env.teardown().await;
}
