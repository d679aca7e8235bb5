//! `revertd pause` and `resume`: the whole fleet stops taking requests, and goes on where it was.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::*;

/// What a worker logs once it has nothing in hand any more.
const PAUSED: &str = "paused: by an operator";

fn told(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = stage.command(arguments).env("USER", "alice").output();
    let output = output.expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

fn pause(stage: &Stage) {
    let (status, _, said) = told(stage, &["pause", "--why", "moving the ledger"]);
    assert_eq!((status, said.as_str()), (0, ""));
}

fn resume(stage: &Stage) {
    let (status, told, said) = told(stage, &["resume"]);
    assert_eq!((status, said.as_str()), (0, ""));
    assert!(
        told.starts_with("resumed; it was paused by alice"),
        "{told}"
    );
}

async fn requests(stage: &Stage, count: usize) -> Vec<Request> {
    let customer = stage.customer().await;
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        let usage = stage.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 5));
    }
    requests
}

async fn outcomes(stage: &Stage) -> i64 {
    stage.count("SELECT count(*) FROM revertd.outcomes").await
}

#[tokio::test]
async fn a_pause_amid_a_load_stops_every_process_and_loses_nothing() {
    let (stage, mut one) = Stage::with_worker().await;
    let mut other = stage.start_worker().await;
    let (requests, mut events) = (requests(&stage, 300).await, stage.events().await);
    let (before, after) = requests.split_at(250);
    let load = async {
        for request in before {
            stage.publish(request).await;
        }
    };
    let pausing = async {
        eventually("the load is worked on", async || {
            outcomes(&stage).await > 20
        })
        .await;
        pause(&stage);
        let began = Instant::now();
        one.logged(PAUSED).await;
        other.logged(PAUSED).await;
        began.elapsed()
    };
    let ((), took) = tokio::join!(load, pausing);
    assert!(took < Duration::from_secs(10), "{took:?}");
    for log in [one.log(), other.log()] {
        assert!(
            log.contains("alice") && log.contains("moving the ledger"),
            "{log}"
        );
        assert_eq!(log.matches(PAUSED).count(), 1, "{log}");
    }
    // Nothing is in hand, and nothing is taken.
    let decided = outcomes(&stage).await;
    for request in after {
        stage.publish(request).await;
    }
    let waiting = u32::try_from(300 - decided).expect("few");
    let work = stage.name("work");
    eventually("what is not decided waits in the queue", async || {
        stage.depth(&work).await == waiting
    })
    .await;
    assert_eq!(outcomes(&stage).await, decided);
    assert!(!one.has_ended() && !other.has_ended());

    resume(&stage);
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    assert_eq!(outcomes(&stage).await, 300);
    for worker in [&mut one, &mut other] {
        assert!(worker.stop().await.success(), "{}", worker.log());
    }
    assert!(!events.has_waiting(), "one event for each");
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}

#[tokio::test]
async fn it_outlasts_starts_stops_and_crashes() {
    let (stage, mut first) = Stage::with_worker().await;
    let (requests, mut events) = (requests(&stage, 10).await, stage.events().await);
    pause(&stage);
    first.logged(PAUSED).await;
    for request in &requests {
        stage.publish(request).await;
    }
    first.kill();
    let mut second = stage.spawn_worker();
    second.logged(PAUSED).await;
    let began = Instant::now();
    assert!(second.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    assert!(!second.log().contains(" ready"), "{}", second.log());
    let mut third = stage.spawn_worker();
    third.logged(PAUSED).await;
    assert_eq!(outcomes(&stage).await, 0);
    assert_eq!(stage.depth(&stage.name("work")).await, 10);
    resume(&stage);
    third.ready().await;
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    assert!(third.stop().await.success());
    stage.strike().await;
}

#[tokio::test]
async fn a_database_that_is_gone_for_a_while_does_not_end_it() {
    let (stage, mut worker) = Stage::with_worker().await;
    pause(&stage);
    worker.logged(PAUSED).await;
    let request = requests(&stage, 1).await.remove(0);
    stage.publish(&request).await;
    let admin = connect_db(&stage.servers.database).await;
    let allow = async |allowed: bool| {
        let statement = format!(
            "ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}",
            stage.database
        );
        admin.batch_execute(&statement).await.expect("allowed");
    };
    allow(false).await;
    let connected = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'
         AND application_name = 'revertd'",
        stage.database
    );
    admin.batch_execute(&connected).await.expect("told to go");
    worker.logged("still paused; cannot read").await;
    allow(true).await;
    // A worker that took it for resumed would take the request: it is there until somebody says so.
    let mut second = stage.spawn_worker();
    second.logged(PAUSED).await;
    assert_eq!(stage.depth(&stage.name("work")).await, 1);
    resume(&stage);
    worker.logged("resumed").await;
    let mut events = stage.events().await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    stage.strike().await;
}

#[tokio::test]
async fn a_schema_without_it_and_a_role_that_may_not_see_it_stop_the_start() {
    let mut stage = Stage::new().await;
    stage.set("DATABASE__MIGRATE_ON_START", "false");
    stage
        .sql(
            "DROP TABLE revertd.control; DELETE FROM revertd.schema_history WHERE name = 'control'",
        )
        .await;
    for arguments in [&["worker"][..], &["pause", "--why", "x"]] {
        let (status, _, said) = told(&stage, arguments);
        assert_eq!(status, 1);
        assert!(said.contains("run `revertd migrate`"), "{said}");
    }
    stage.strike().await;
}

#[tokio::test]
async fn who_paused_and_why_is_kept() {
    let stage = Stage::new().await;
    assert_eq!(told(&stage, &["pause"]).0, 2, "a reason is required");
    assert_eq!(told(&stage, &["pause", "--why", " "]).0, 2);
    let (status, out, _) = told(&stage, &["resume"]);
    assert_eq!((status, out.as_str()), (0, "it was not paused\n"));
    let (_, out, _) = told(
        &stage,
        &[
            "pause",
            "--why",
            "an incident",
            "--by",
            "bob",
            "--output",
            "json",
        ],
    );
    let told_json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told_json["paused"], true);
    assert_eq!(
        (&told_json["by"], &told_json["why"]),
        (&"bob".into(), &"an incident".into())
    );
    let (status, out, said) = told(&stage, &["pause", "--why", "another"]);
    assert!(status == 0 && out.starts_with("paused by alice"), "{out}");
    assert!(
        said.contains("paused already, by bob") && said.contains("an incident"),
        "{said}"
    );
    let (_, out, _) = told(&stage, &["resume", "--why", "all is well"]);
    assert!(
        out.starts_with("resumed") && out.contains("another"),
        "{out}"
    );
    let rows = "SELECT count(*) FROM revertd.control WHERE changed_as = session_user";
    assert_eq!(stage.count(rows).await, 4, "each is written down");
    stage.strike().await;
}
