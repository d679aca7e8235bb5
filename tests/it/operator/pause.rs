//! `revertd pause` and `resume`: the whole fleet stops taking requests, and resumes where it
//! stopped.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

/// The log line of a worker that has no message in flight any more.
const PAUSED: &str = "paused: by an operator";

fn run(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let output = env.command(arguments).env("USER", "alice").output();
    let output = output.expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

fn pause(env: &TestEnv) {
    let (status, _, stderr) = run(env, &["pause", "--why", "moving the ledger"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
}

fn resume(env: &TestEnv) {
    let (status, stdout, stderr) = run(env, &["resume"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("resumed; it was paused by alice"),
        "{stdout}"
    );
}

async fn requests(env: &TestEnv, count: usize) -> Vec<Request> {
    let customer = env.customer().await;
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 5));
    }
    requests
}

async fn outcomes(env: &TestEnv) -> i64 {
    env.count("SELECT count(*) FROM revertd.outcomes").await
}

#[tokio::test]
async fn a_pause_under_load_stops_all_and_loses_nothing() {
    let (env, mut one) = TestEnv::with_worker().await;
    let mut other = env.start_worker().await;
    let (requests, mut events) = (requests(&env, 300).await, env.events().await);
    let (before, after) = requests.split_at(250);
    let load = async {
        for request in before {
            env.publish(request).await;
        }
    };
    let pausing = async {
        eventually("the load is worked on", async || outcomes(&env).await > 20).await;
        pause(&env);
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
    let decided = outcomes(&env).await;
    for request in after {
        env.publish(request).await;
    }
    let waiting = u32::try_from(300 - decided).expect("few");
    let work = env.name("work");
    eventually("what is not decided waits in the queue", async || {
        env.depth(&work).await == waiting
    })
    .await;
    assert_eq!(outcomes(&env).await, decided);
    assert!(!one.has_ended() && !other.has_ended());

    resume(&env);
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    assert_eq!(outcomes(&env).await, 300);
    for worker in [&mut one, &mut other] {
        assert!(worker.stop().await.success(), "{}", worker.log());
    }
    assert!(!events.has_waiting(), "one event for each");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_pause_survives_restarts_and_crashes() {
    let (env, mut first) = TestEnv::with_worker().await;
    let (requests, mut events) = (requests(&env, 10).await, env.events().await);
    pause(&env);
    first.logged(PAUSED).await;
    for request in &requests {
        env.publish(request).await;
    }
    first.kill();
    let mut second = env.spawn_worker();
    second.logged(PAUSED).await;
    let began = Instant::now();
    assert!(second.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    assert!(!second.log().contains(" ready"), "{}", second.log());
    let mut third = env.spawn_worker();
    third.logged(PAUSED).await;
    assert_eq!(outcomes(&env).await, 0);
    assert_eq!(env.depth(&env.name("work")).await, 10);
    resume(&env);
    third.ready().await;
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    assert!(third.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn a_database_outage_does_not_end_a_pause() {
    let (env, mut worker) = TestEnv::with_worker().await;
    pause(&env);
    worker.logged(PAUSED).await;
    let request = requests(&env, 1).await.remove(0);
    env.publish(&request).await;
    let admin = connect_db(&env.servers.database).await;
    let allow = async |allowed: bool| {
        let statement = format!(
            "ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}",
            env.database
        );
        admin.batch_execute(&statement).await.expect("allowed");
    };
    allow(false).await;
    let connected = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'
         AND application_name = 'revertd'",
        env.database
    );
    admin.batch_execute(&connected).await.expect("told to go");
    worker.logged("still paused; cannot read").await;
    allow(true).await;
    // A worker that considered the fleet resumed would take the request. It stays until the resume.
    let mut second = env.spawn_worker();
    second.logged(PAUSED).await;
    assert_eq!(env.depth(&env.name("work")).await, 1);
    resume(&env);
    worker.logged("resumed").await;
    let mut events = env.events().await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    env.teardown().await;
}

#[tokio::test]
async fn a_missing_pause_table_stops_the_start() {
    let mut env = TestEnv::new().await;
    env.set("DATABASE__MIGRATE_ON_START", "false");
    env.sql(
        "DROP TABLE revertd.control; DELETE FROM revertd.schema_history WHERE name = 'control'",
    )
    .await;
    for arguments in [&["worker"][..], &["pause", "--why", "x"]] {
        let (status, _, stderr) = run(&env, arguments);
        assert_eq!(status, 1);
        assert!(stderr.contains("run `revertd migrate`"), "{stderr}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn the_operator_and_reason_of_a_pause_are_kept() {
    let env = TestEnv::new().await;
    assert_eq!(run(&env, &["pause"]).0, 2, "a reason is required");
    assert_eq!(run(&env, &["pause", "--why", " "]).0, 2);
    let (status, out, _) = run(&env, &["resume"]);
    assert_eq!((status, out.as_str()), (0, "it was not paused\n"));
    let (_, out, _) = run(
        &env,
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
    let (status, out, stderr) = run(&env, &["pause", "--why", "another"]);
    assert!(status == 0 && out.starts_with("paused by alice"), "{out}");
    assert!(
        stderr.contains("paused already, by bob") && stderr.contains("an incident"),
        "{stderr}"
    );
    let (_, out, _) = run(&env, &["resume", "--why", "all is well"]);
    assert!(
        out.starts_with("resumed") && out.contains("another"),
        "{out}"
    );
    let rows = "SELECT count(*) FROM revertd.control WHERE changed_as = session_user";
    assert_eq!(env.count(rows).await, 4, "each is written down");
    env.teardown().await;
}
