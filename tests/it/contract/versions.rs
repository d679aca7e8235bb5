//! Two versions side by side: this version publishes outcomes that a later version stored. An
//! outcome that it cannot publish fails only its own request.

mod next_version;

use revertd::domain::refusal::RefusalReason;
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

const REASON: &str = "TOO_MANY_REVERTS";

/// A stored refusal of a request, made one of a reason that this version does not know.
async fn refused(env: &TestEnv, account: Uuid) -> (Request, Message) {
    let mut events = env.events().await;
    let request = Request::revert(account, Uuid::new_v4(), 5);
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "USAGE_NOT_FOUND");
    (request, event)
}

/// The next event, which the documents of this version can't describe.
async fn later_event(env: &TestEnv) -> Message {
    let queue = env.name("replies");
    let letter = env.peek(&queue).await;
    let options = lapin::options::QueuePurgeOptions::default();
    let purged = env.channel.queue_purge(queue.as_str().into(), options);
    purged.await.expect("purged");
    letter
}

fn run(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let output = env.command(arguments).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().expect("no signal"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn a_refusal_is_stored_with_its_code_and_message() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (request, event) = refused(&env, customer.account).await;
    let words = "SELECT count(*) FROM revertd.outcomes WHERE refusal_code = 5
        AND refusal_message = 'no such usage in this billing account'";
    assert_eq!(env.count(words).await, 1);
    let mut events = env.events().await;
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.body, event.body);
    // A version from before stored neither; the event is the same, to the byte.
    env.sql("UPDATE revertd.outcomes SET refusal_code = NULL, refusal_message = NULL")
        .await;
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.body, event.body);
    // One that words it otherwise stored its own words, which stay.
    env.sql("UPDATE revertd.outcomes SET refusal_code = 5, refusal_message = 'other words'")
        .await;
    env.publish(&request).await;
    let other = events.answer(&request).await.json();
    assert_eq!(other["data"]["error"]["message"], "other words");
    assert_eq!(other["id"], event.json()["id"]);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_refusal_of_a_later_version_is_told_as_stored() {
    let (env, mut worker) = TestEnv::with_worker_set(&[(LISTEN.0, LISTEN.1)]).await;
    let customer = env.customer().await;
    let (request, _) = refused(&env, customer.account).await;
    env.sql(&format!(
        "UPDATE revertd.outcomes SET refusal = '{REASON}', refusal_code = 8, refusal_message = \
                'too many',
                refusal_metadata = '{{\"limit\": \"3\"}}'"
    ))
    .await;
    env.publish(&request).await;
    let event = later_event(&env).await;
    let error = &event.json()["data"]["error"];
    assert_eq!(
        *error,
        json!({"code": 8, "message": "too many", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": REASON,
            "domain": "revertd", "metadata": {"limit": "3"}}]})
    );
    let telemetry = Telemetry::of(&mut worker).await;
    let labels = [("outcome", "rejected"), ("reason", "OTHER")];
    telemetry.shows("revertd_requests_total", &labels, 1).await;
    assert!(!telemetry.metrics().await.values("reason").contains(REASON));

    let id = request.properties.message_id().clone().expect("it has one");
    let (_, stdout, _) = run(&env, &["status", "--request", id.as_str(), "--no-queues"]);
    assert!(
        stdout.contains("TOO_MANY_REVERTS: too many, limit 3"),
        "{stdout}"
    );
    let (status, stdout, stderr) = run(&env, &["verify"]);
    assert_eq!(status, 0, "{stdout}{stderr}");
    let (status, _, stderr) = run(&env, &["events", "republish", "--yes"]);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(later_event(&env).await.body, event.body);
    env.teardown().await;
}

#[tokio::test]
async fn an_unpublishable_outcome_fails_its_request() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let (request, _) = refused(&env, customer.account).await;
    // As before outcomes had words, or with a constraint dropped.
    env.sql(&format!(
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_refusal_known;
             UPDATE revertd.outcomes SET refusal = '{REASON}', refusal_code = NULL, \
             refusal_message = NULL"
    ))
    .await;
    let (mut events, mut dead) = (env.events().await, env.dead_letters().await);
    let usage = env.usage(customer.account, 20).await;
    let other = Request::revert(customer.account, usage, 5);
    env.publish(&request).await;
    env.publish(&other).await;
    assert_eq!(events.answer(&other).await.verdict(), "usage.reverted");
    let failed = events.answer(&request).await;
    assert_eq!(failed.verdict(), "RETRIES_EXHAUSTED");
    assert_eq!(dead.answer(&request).await.body, request.body);
    let log = worker.log();
    assert!(
        !log.contains("panicked") && !log.contains("paused"),
        "{log}"
    );
    let id = request.properties.message_id().clone().expect("it has one");
    let (_, stdout, _) = run(
        &env,
        &["status", "--request", id.as_str(), "--output", "json"],
    );
    let stdout: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(stdout["outcomes"][0]["refusal"]["reason"], REASON);
    let (status, stdout, stderr) = run(&env, &["events", "republish", "--yes", "--output", "json"]);
    assert_eq!(status, 1, "{stderr}");
    let stdout: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (&stdout["untold"], &stdout["usage.reverted"]),
        (&json!(1), &json!(1))
    );
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn a_refusal_without_code_or_message_is_not_stored() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    refused(&env, customer.account).await;
    for (set, constraint) in [
        (
            "refusal = 'LATER', refusal_code = NULL, refusal_message = NULL",
            "known",
        ),
        ("refusal = 'with spaces', refusal_code = 9", "known"),
        ("refusal = ''", "known"),
        ("refusal_code = NULL", "words"),
        ("refusal_code = 0", "words"),
        ("refusal_message = ''", "words"),
    ] {
        let update = format!("UPDATE revertd.outcomes SET {set}");
        let error = env.db.batch_execute(&update).await.expect_err(set);
        let violated = error.as_db_error().and_then(|error| error.constraint());
        assert_eq!(
            violated,
            Some(format!("outcomes_refusal_{constraint}").as_str()),
            "{set}"
        );
    }
    env.sql("UPDATE revertd.outcomes SET refusal = 'LATER_2', refusal_code = 10")
        .await;
    env.teardown().await;
}

/// The constraint accepts a new refusal without a migration.
#[tokio::test]
async fn every_refusal_of_the_table_can_be_stored() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    refused(&env, customer.account).await;
    let update = "UPDATE revertd.outcomes
        SET refusal = $1, refusal_code = $2, refusal_message = $3";
    for row in RefusalReason::ALL.iter().map(|reason| reason.row()) {
        let values: [&(dyn ToSql + Sync); 3] = [&row.reason, &row.code.number(), &row.message];
        let updated = env.db.execute(update, &values).await;
        assert_eq!(updated.expect(row.reason), 1);
    }
    env.teardown().await;
}
