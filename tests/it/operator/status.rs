//! `revertd status`: the state of a usage or a request, wherever it is.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::operator::dead_letters::setup::dead_letters;
use crate::support::dead_letters::DeadLetter;
use crate::support::*;

fn status(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let output = env
        .command(&[&["status"], arguments].concat())
        .output()
        .expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

fn object(env: &TestEnv, arguments: &[&str]) -> Value {
    let (_, stdout, stderr) = status(env, &[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

#[tokio::test]
async fn status_shows_the_entries_and_event_of_a_request() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, publisher) = (env.events().await, env.publisher().await);
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let name = usage.to_string();
    let (code, stdout, _) = status(&env, &[&name]);
    assert_eq!(code, 0, "the usage is known");
    assert!(
        stdout.contains("the usage") && stdout.contains("no request for it"),
        "{stdout}"
    );

    let request = Request::revert(customer.account, usage, 15).id("job-1");
    publisher.publish(request.clone()).await;
    let event = events.answer(&request).await.json();
    let again = Request::revert(customer.account, usage, 5).id("job-2");
    env.publish(&again).await;
    let refused = events.answer(&again).await.json();
    let (code, stdout, stderr) = status(&env, &[&name]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for line in [
        "request job-1 of client publisher: 15 of usage",
        "usage.reverted: 15 of 20 given back, 5 remain",
        "request job-2 of client -: 5 of usage",
        "usage.revert.rejected: ALREADY_REVERTED",
        event["id"].as_str().expect("an id"),
        refused["id"].as_str().expect("an id"),
        event["data"]["transaction_id"].as_str().expect("an id"),
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert_eq!(
        stdout.matches("reverts it\n").count(),
        2,
        "both legs: {stdout}"
    );

    let shown = object(&env, &["--request", "job-1"]);
    assert_eq!(shown["outcomes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        shown["outcomes"][0]["event"],
        json!({"id": event["id"], "type": "usage.reverted"})
    );
    assert_eq!(shown["outcomes"][0]["decided_at"], event["time"]);
    assert_eq!(shown["entries"].as_array().map(Vec::len), Some(3));
    for (client, found) in [("publisher", 0), ("other", 1), ("", 1)] {
        assert_eq!(
            status(&env, &["--request", "job-1", "--client", client]).0,
            found,
            "{client}"
        );
    }
    // Of another writer's, the customer's leg.
    let other = env.usage(customer.account, 20).await;
    let theirs = env
        .frontier_revert(
            "theirs",
            customer.account,
            &other.to_string().to_uppercase(),
            20,
        )
        .await;
    let (_, stdout, _) = status(&env, &[&other.to_string()]);
    assert!(
        stdout.contains(&format!("entry {theirs}: reverts it, by another writer")),
        "{stdout}"
    );
    env.teardown().await;
}

/// An operator has a login that the worker's own messages are not of.
#[tokio::test]
async fn status_shows_the_client_of_a_message_on_a_rung() {
    let (env, worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "60s")]).await;
    let (publisher, customer) = (env.publisher().await, env.customer().await);
    let user = publisher.user.clone();
    let request = Request::revert(customer.account, Uuid::new_v4(), 5).id("early");
    publisher.publish(request.reply_to("somebody")).await;
    let rung = env.name("retry.1m");
    eventually("it waits", async || env.depth(&rung).await == 1).await;
    drop(worker);
    let amqp = env.servers.publisher.clone().expect("another login");
    let run = |arguments: &[&str]| {
        let mut command = env.command(&[&["status", "--request", "early"], arguments].concat());
        command.env("REVERTD_AMQP__URL", &amqp);
        let output = command.output().expect("runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let stdout = run(&["--client", &user]);
    let (worker, client) = (env.login(), &user);
    let waits = format!(
        "request early of client {client}, put there by {worker}, waits on {rung} for its next \
            attempt"
    );
    assert!(stdout.contains(&waits), "{stdout}");
    assert!(stdout.contains("reply_to somebody"), "{stdout}");
    let stdout = run(&["--client", &worker]);
    assert!(stdout.contains("nothing"), "{stdout}");
    let own = object(&env, &["--request", "early"]);
    assert_eq!(own["waiting"][0]["client"], user.as_str());
    assert_eq!(own["waiting"][0]["client_claimed_by"], Value::Null);
    assert_eq!(own["waiting"][0]["reply_to_refused"], "somebody");
    env.teardown().await;
}

#[tokio::test]
async fn status_finds_a_request_on_a_rung_and_dead_letters() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("RETRY__DELAYS", "60s,5m")]).await;
    let customer = env.customer().await;
    let usage = Uuid::new_v4();
    let name = usage.to_string();
    assert_eq!(status(&env, &[&name]).0, 1, "nothing is known");
    let request = Request::revert(customer.account, usage, 5).id("early");
    env.publish(&request).await;
    let rung = env.name("retry.1m");
    eventually("it waits", async || env.depth(&rung).await == 1).await;
    let (code, stdout, stderr) = status(&env, &[&name]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains(&format!("request early of client - waits on {rung}")),
        "{stdout}"
    );
    assert_eq!(
        object(&env, &["--request", "early"])["waiting"][0]["queue"],
        rung
    );
    let unseen = object(&env, &[&name, "--no-queues"]);
    assert_eq!(unseen["waiting"], json!([]));
    worker.stop().await;

    env.put_dead_letters(&[DeadLetter::new(customer.account, usage, 5).id("dead")])
        .await;
    raw::publish_with_message_id(&env, b"\xff\xfe").await;
    let shown = object(&env, &[&name]);
    let letter = &shown["waiting"][1];
    assert_eq!(
        (&letter["dead"], &letter["reason"]),
        (&json!(true), &json!("RETRIES_EXHAUSTED"))
    );
    assert_eq!(
        (&letter["client"], &letter["attempts"]),
        (&json!("render"), &json!(4))
    );
    // The interventions of operators are shown, too.
    let (code, _, stderr) =
        dead_letters(&env, &["discard", "dead", "--why", "it is moot", "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, _) = status(&env, &["--request", "dead", "--client", "render"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(
        stdout.contains("discard of its dead letter by alice") && stdout.contains("it is moot"),
        "{stdout}"
    );
    let deleting = env.channel.queue_delete(
        rung.as_str().into(),
        lapin::options::QueueDeleteOptions::default(),
    );
    deleting.await.expect("deleted");
    env.teardown().await;
}

#[tokio::test]
async fn status_reports_queues_that_it_cannot_read() {
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await.to_string();
    // No worker was ever there, and so no queue.
    let (code, stdout, stderr) = status(&env, &[&usage]);
    assert_eq!(code, 0, "{stdout}");
    assert_eq!(stderr.matches("not read: ").count(), 4, "{stderr}");
    assert!(stderr.contains("revertd worker"), "{stderr}");
    assert_eq!(
        object(&env, &[&usage])["unseen"].as_array().map(Vec::len),
        Some(4)
    );
    for wrong in [
        &[][..],
        &["nonsense"],
        &[&usage.replace('-', "")],
        &[&usage, "--request", "x"],
        &[&usage, "--client", "x"],
    ] {
        assert_eq!(status(&env, wrong).0, 2, "{wrong:?}");
    }
    let paused = env.command(&["pause", "--why", "moving"]).output();
    assert!(paused.expect("runs").status.success());
    let (_, stdout, _) = status(&env, &[&usage, "--no-queues"]);
    assert!(
        stdout.contains("the fleet is paused by ") && stdout.contains("moving"),
        "{stdout}"
    );
    env.sql("DROP SCHEMA revertd CASCADE").await;
    let (code, _, stderr) = status(&env, &[&usage]);
    assert!(code == 1 && stderr.contains("revertd migrate"), "{stderr}");
    env.teardown().await;
}
