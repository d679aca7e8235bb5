//! `revertd status`: what became of a usage or a request, wherever it is.

use serde_json::{Value, json};
use uuid::Uuid;

use super::dead_letters::letters;
use super::support::letters::Draft;
use super::support::*;

fn status(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = stage
        .command(&[&["status"], arguments].concat())
        .output()
        .expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

fn object(stage: &Stage, arguments: &[&str]) -> Value {
    let (_, told, said) = status(stage, &[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}{said}"))
}

#[tokio::test]
async fn a_decided_request_is_told_with_its_entries_and_its_event() {
    let (stage, _worker) = Stage::with_worker().await;
    let (mut events, publisher) = (stage.events().await, stage.publisher().await);
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let name = usage.to_string();
    let (code, told, _) = status(&stage, &[&name]);
    assert_eq!(code, 0, "the usage is known");
    assert!(
        told.contains("the usage") && told.contains("no request for it"),
        "{told}"
    );

    let request = Request::revert(customer.account, usage, 15).id("job-1");
    publisher.publish(request.clone()).await;
    let event = events.answer(&request).await.json();
    let again = Request::revert(customer.account, usage, 5).id("job-2");
    stage.publish(&again).await;
    let refused = events.answer(&again).await.json();
    let (code, told, said) = status(&stage, &[&name]);
    assert_eq!((code, said.as_str()), (0, ""));
    for line in [
        "request job-1 of client publisher: 15 of usage",
        "usage.reverted: 15 of 20 given back, 5 remain",
        "request job-2 of client -: 5 of usage",
        "usage.revert.rejected: ALREADY_REVERTED",
        event["id"].as_str().expect("an id"),
        refused["id"].as_str().expect("an id"),
        event["data"]["transaction_id"].as_str().expect("an id"),
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(told.matches("reverts it\n").count(), 2, "both legs: {told}");

    let shown = object(&stage, &["--request", "job-1"]);
    assert_eq!(shown["outcomes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        shown["outcomes"][0]["event"],
        json!({"id": event["id"], "type": "usage.reverted"})
    );
    assert_eq!(shown["outcomes"][0]["decided_at"], event["time"]);
    assert_eq!(shown["entries"].as_array().map(Vec::len), Some(3));
    for (client, found) in [("publisher", 0), ("other", 1), ("", 1)] {
        assert_eq!(
            status(&stage, &["--request", "job-1", "--client", client]).0,
            found,
            "{client}"
        );
    }
    // Of another writer's, the customer's leg.
    let other = stage.usage(customer.account, 20).await;
    let theirs = stage
        .frontier_revert(
            "theirs",
            customer.account,
            &other.to_string().to_uppercase(),
            20,
        )
        .await;
    let (_, told, _) = status(&stage, &[&other.to_string()]);
    assert!(
        told.contains(&format!("entry {theirs}: reverts it, by another writer")),
        "{told}"
    );
    stage.strike().await;
}

/// An operator has a login that the worker's own messages are not of.
#[tokio::test]
async fn under_another_login_a_rung_shows_the_client() {
    let (stage, worker) = Stage::with_worker_set(&[("RETRY__DELAYS", "60s")]).await;
    let (publisher, customer) = (stage.publisher().await, stage.customer().await);
    let user = publisher.user.clone();
    let request = Request::revert(customer.account, Uuid::new_v4(), 5).id("early");
    publisher.publish(request.reply_to("somebody")).await;
    let rung = stage.name("retry.1m");
    eventually("it waits", async || stage.depth(&rung).await == 1).await;
    drop(worker);
    let amqp = stage.servers.publisher.clone().expect("another login");
    let run = |arguments: &[&str]| {
        let mut command = stage.command(&[&["status", "--request", "early"], arguments].concat());
        command.env("REVERTD_AMQP__URL", &amqp);
        let output = command.output().expect("runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let told = run(&["--client", &user]);
    let (worker, client) = (stage.login(), &user);
    let waits = format!(
        "request early of client {client}, put there by {worker}, waits on {rung} for its next attempt"
    );
    assert!(told.contains(&waits), "{told}");
    assert!(told.contains("reply_to somebody"), "{told}");
    let told = run(&["--client", &worker]);
    assert!(told.contains("nothing"), "{told}");
    let own = object(&stage, &["--request", "early"]);
    assert_eq!(own["waiting"][0]["client"], user.as_str());
    assert_eq!(own["waiting"][0]["client_claimed_by"], Value::Null);
    assert_eq!(own["waiting"][0]["reply_to_refused"], "somebody");
    stage.strike().await;
}

#[tokio::test]
async fn a_request_that_waits_is_found_on_its_rung_and_among_the_dead() {
    let (stage, mut worker) = Stage::with_worker_set(&[("RETRY__DELAYS", "60s,5m")]).await;
    let customer = stage.customer().await;
    let usage = Uuid::new_v4();
    let name = usage.to_string();
    assert_eq!(status(&stage, &[&name]).0, 1, "nothing is known");
    let request = Request::revert(customer.account, usage, 5).id("early");
    stage.publish(&request).await;
    let rung = stage.name("retry.1m");
    eventually("it waits", async || stage.depth(&rung).await == 1).await;
    let (code, told, said) = status(&stage, &[&name]);
    assert_eq!(code, 0, "{said}");
    assert!(
        told.contains(&format!("request early of client - waits on {rung}")),
        "{told}"
    );
    assert_eq!(
        object(&stage, &["--request", "early"])["waiting"][0]["queue"],
        rung
    );
    let unseen = object(&stage, &[&name, "--no-queues"]);
    assert_eq!(unseen["waiting"], json!([]));
    worker.stop().await;

    stage
        .dead_letter(&[Draft::new(customer.account, usage, 5).id("dead")])
        .await;
    raw::publish_with_message_id(&stage, b"\xff\xfe").await;
    let shown = object(&stage, &[&name]);
    let letter = &shown["waiting"][1];
    assert_eq!(
        (&letter["dead"], &letter["reason"]),
        (&json!(true), &json!("RETRIES_EXHAUSTED"))
    );
    assert_eq!(
        (&letter["client"], &letter["attempts"]),
        (&json!("render"), &json!(4))
    );
    // What operators did is told, too.
    let (code, _, said) = letters(&stage, &["discard", "dead", "--why", "it is moot", "--yes"]);
    assert_eq!(code, 0, "{said}");
    let (code, told, _) = status(&stage, &["--request", "dead", "--client", "render"]);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("discard of its dead letter by alice") && told.contains("it is moot"),
        "{told}"
    );
    let deleting = stage.channel.queue_delete(
        rung.as_str().into(),
        lapin::options::QueueDeleteOptions::default(),
    );
    deleting.await.expect("deleted");
    stage.strike().await;
}

#[tokio::test]
async fn what_can_not_be_seen_is_said_and_wrong_usage_too() {
    let stage = Stage::new().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await.to_string();
    // No worker was ever there, and so no queue.
    let (code, told, said) = status(&stage, &[&usage]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(said.matches("not read: ").count(), 4, "{said}");
    assert!(said.contains("revertd worker"), "{said}");
    assert_eq!(
        object(&stage, &[&usage])["unseen"].as_array().map(Vec::len),
        Some(4)
    );
    for wrong in [
        &[][..],
        &["nonsense"],
        &[&usage.replace('-', "")],
        &[&usage, "--request", "x"],
        &[&usage, "--client", "x"],
    ] {
        assert_eq!(status(&stage, wrong).0, 2, "{wrong:?}");
    }
    let paused = stage.command(&["pause", "--why", "moving"]).output();
    assert!(paused.expect("runs").status.success());
    let (_, told, _) = status(&stage, &[&usage, "--no-queues"]);
    assert!(
        told.contains("the fleet is paused by ") && told.contains("moving"),
        "{told}"
    );
    stage.sql("DROP SCHEMA revertd CASCADE").await;
    let (code, _, said) = status(&stage, &[&usage]);
    assert!(code == 1 && said.contains("revertd migrate"), "{said}");
    stage.strike().await;
}
