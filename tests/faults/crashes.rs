//! The process aborts at each failpoint of a message's way, under load, with another worker beside
//! it.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use revertd::common::failpoint;
use tokio::time::sleep;

use crate::support::audit::{AuditResult, audit};
use crate::support::load::{Load, RequestKind, Sent};
use crate::support::report::{full, report, seed};
use crate::support::{Request, TestEnv, WorkerProcess, eventually};

mod groups;

/// Messages that are published before the crashing worker is checked.
const PART: usize = 60;

fn rounds() -> usize {
    if full() { 40 } else { 4 }
}

/// A worker that crashes at `seam` once it has passed it `passes` times.
fn start_crashing_worker(env: &TestEnv, seam: &str, passes: u64) -> WorkerProcess {
    let mut command = env.command(&["worker"]);
    command.env("FAILPOINTS", format!("{seam}={passes}*off->return"));
    WorkerProcess::spawn(command)
}

async fn assert_aborted(crashing: &mut WorkerProcess) {
    let status = crashing.ended().await;
    let aborted = status.signal() == Some(6);
    assert!(aborted, "{status}: {}", crashing.log());
}

/// Crashes again and again at one seam; counts.
async fn crash_at(seam: &str) {
    let seed = seed();
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "20");
    let steady = env.start_worker().await;
    let load = Load::mixed(&env, seed, rounds() * PART * 2).await;
    let mut parts = load.parts(PART).cycle();
    for round in 0..rounds() {
        let mut crashing = start_crashing_worker(&env, seam, (seed + round as u64) % 4);
        crashing.ready().await;
        while !crashing.has_ended() {
            load.publish_part(&env, parts.next().expect("it cycles"))
                .await;
        }
        assert_aborted(&mut crashing).await;
    }
    load.publish(&env).await;
    let count = audit(&env, &load, vec![steady]).await;
    report(&format!("crash: {seam}"), rounds(), count);
    env.teardown().await;
}

#[tokio::test]
async fn a_crash_after_receipt_loses_nothing() {
    crash_at(failpoint::RECEIVED).await;
}

#[tokio::test]
async fn a_crash_before_the_statement_loses_nothing() {
    crash_at(failpoint::DECODED).await;
}

#[tokio::test]
async fn a_crash_within_the_statement_loses_nothing() {
    crash_at(failpoint::DECIDING).await;
}

#[tokio::test]
async fn a_crash_between_commit_and_publish_loses_nothing() {
    crash_at(failpoint::DECIDED).await;
}

#[tokio::test]
async fn a_crash_amid_the_publishes_loses_nothing() {
    crash_at(failpoint::HALF_PUBLISHED).await;
}

#[tokio::test]
async fn a_crash_before_the_confirms_loses_nothing() {
    crash_at(failpoint::PUBLISHED).await;
}

#[tokio::test]
async fn a_crash_between_confirm_and_ack_loses_nothing() {
    crash_at(failpoint::CONFIRMED).await;
}

#[tokio::test]
async fn a_crash_between_retry_and_ack_loses_nothing() {
    crash_at(failpoint::PASSED_ON).await;
}

#[tokio::test]
async fn a_crash_after_the_ack_loses_nothing() {
    crash_at(failpoint::SETTLED).await;
}

#[tokio::test]
async fn a_crash_during_a_graceful_stop_loses_nothing() {
    let seed = seed();
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "20");
    let steady = env.start_worker().await;
    let load = Load::mixed(&env, seed, rounds() * PART * 2).await;
    let mut parts = load.parts(PART).cycle();
    for _ in 0..rounds() {
        let mut crashing = start_crashing_worker(&env, failpoint::STOPPING, 0);
        crashing.ready().await;
        load.publish_part(&env, parts.next().expect("it cycles"))
            .await;
        crashing.signal("TERM");
        assert_aborted(&mut crashing).await;
    }
    load.publish(&env).await;
    let count = audit(&env, &load, vec![steady]).await;
    report("crash: stopping", rounds(), count);
    env.teardown().await;
}

/// The objects of a schema, as text.
const SCHEMA: &str = "
    SELECT string_agg(item, E'\\n' ORDER BY item) FROM (
        SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) AS item FROM \
        pg_constraint
        UNION ALL
        SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc p
        WHERE p.pronamespace = 'revertd'::regnamespace AND p.prokind = 'f'
        UNION ALL
        SELECT 'index ' || pg_get_indexdef(indexrelid) || ' ' || indisvalid FROM pg_index
        WHERE indexrelid::regclass::text LIKE '%revertd%'
        UNION ALL
        SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT 'migration ' || version || ' ' || name || ' ' || checksum FROM revertd.schema_history
    ) items";

#[tokio::test]
async fn a_crashed_migration_is_completed_by_the_next() {
    let seed = seed();
    let mut count = AuditResult::default();
    let runs = if full() { 30 } else { 3 };
    for run in 0..runs {
        let env = TestEnv::new().await;
        let whole = schema(&env).await;
        let revert = "DROP SCHEMA revertd CASCADE; DROP INDEX billing_transactions_revertd_idx";
        env.sql(revert).await;
        // Several at once, as a fleet starts: the first crashes at one of three seams.
        let mut crashing = start_crashing_worker(&env, failpoint::MIGRATING, run % 3);
        let mut others = [env.spawn_worker(), env.spawn_worker()];
        // It may find the work done, and then has no reason to crash.
        eventually("it crashes or works", async || {
            crashing.has_ended() || crashing.log().contains(" ready ")
        })
        .await;
        for other in &mut others {
            other.ready().await;
        }
        assert_eq!(schema(&env).await, whole, "run {run}");
        drop(crashing);
        let load = Load::mixed(&env, seed + run, 100).await;
        load.publish(&env).await;
        count += audit(&env, &load, others.into()).await;
        env.teardown().await;
    }
    report(
        "crash: migrating",
        usize::try_from(runs).expect("few"),
        count,
    );
}

async fn schema(env: &TestEnv) -> String {
    let row = env.db.query_one(SCHEMA, &[]).await.expect("read");
    row.get(0)
}

/// A message that crashes every process that reads it, thrice, among good ones.
#[tokio::test]
async fn a_message_that_crashes_workers_is_dead_lettered() {
    const MARK: &str = "this body crashes";
    let seed = seed();
    let env = TestEnv::new().await;
    let start = |env: &TestEnv| {
        let mut command = env.command(&["worker"]);
        command.env(
            "FAILPOINTS",
            format!("{}=return({MARK})", failpoint::READING),
        );
        WorkerProcess::spawn(command)
    };
    env.start_worker().await.stop().await;
    let mut load = Load::mixed(&env, seed, if full() { 20_000 } else { 1500 }).await;
    let third = load.requests.len() / 3;
    for n in [1, third, 2 * third] {
        let request = Request::raw(format!("{{\"n\": {n}, \"x\": \"{MARK}\"}}"));
        load.requests.insert(
            n,
            Sent {
                request,
                kind: RequestKind::CrashesWorker,
            },
        );
    }
    load.publish(&env).await;
    let mut answers = env.subscribe().await;
    let mut workers = vec![start(&env), start(&env)];
    let mut crashes = 0;
    // Restarts processes as a service manager does, until each message is given up.
    let given_up = async {
        for sent in load
            .requests
            .iter()
            .filter(|sent| sent.kind == RequestKind::CrashesWorker)
        {
            assert_eq!(
                answers.answer(&sent.request).await.verdict(),
                "RETRIES_EXHAUSTED"
            );
        }
    };
    let restarting = async {
        loop {
            for worker in &mut workers {
                if worker.has_ended() {
                    crashes += 1;
                    *worker = start(&env);
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = given_up => {}
        () = restarting => {}
    }
    assert!(crashes >= 3, "they crash what reads them: {crashes}");
    let count = audit(&env, &load, workers).await;
    report("poison: a message that crashes", crashes, count);
    env.teardown().await;
}
