//! Half of the load that the pool can bear, with a fault every few seconds: memory, files, sessions
//! and threads of a process must not grow.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::instance::Instance;
use crate::support::audit::{AuditResult, audit};
use crate::support::load::Load;
use crate::support::report::{full, report, seed};
use crate::support::{Servers, TestEnv, connect_db, with_database};

/// Requests of one part of the load.
const PART: usize = 200;

/// Statements that a session prepares at most, however many it runs: a worker's the one of a batch,
/// that of the schema's check at the start about ten.
const STATEMENTS: u64 = 16;

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
struct Holding {
    resident_kib: i64,
    files: i64,
    threads: i64,
    sessions: i64,
}

/// A compared number, and its allowed difference in addition to a tenth.
type Number = (&'static str, fn(&Holding) -> i64, i64);

const NUMBERS: [Number; 4] = [
    (
        "resident memory in KiB",
        |holding| holding.resident_kib,
        8 * 1024,
    ),
    ("open files", |holding| holding.files, 2 + POOL),
    ("threads", |holding| holding.threads, 2),
    ("sessions with PostgreSQL", |holding| holding.sessions, POOL),
];

/// Sessions that a pool has at most: how many there are after a fault depends on how many workers
/// met at once.
const POOL: i64 = 5;

async fn holding(env: &TestEnv, pid: u32) -> Option<Holding> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<i64>().ok()
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let url = with_database(&env.servers.database, &env.database);
    let sessions = crate::support::reconnect::reconnect_db(&url)
        .await
        .query_one(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = 'revertd' AND datname = current_database()",
            &[],
        )
        .await
        .ok()?;
    Some(Holding {
        resident_kib: number("VmRSS:")?,
        files: i64::try_from(files).ok()?,
        threads: number("Threads:")?,
        sessions: sessions.get(0),
    })
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Compares the second quarter with the last, because a leak keeps growing.
fn assert_flat(samples: &[Holding], count: &mut AuditResult) {
    let quarter = samples.len() / 4;
    for (name, of, slack) in NUMBERS {
        let early = median(samples[quarter..2 * quarter].iter().map(of).collect());
        let late = median(samples[3 * quarter..].iter().map(of).collect());
        println!("soak: {name}: {early} in the second quarter, {late} in the last");
        if late > early + early / 10 + slack {
            count
                .findings
                .push(format!("{name} grew from {early} to {late}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_under_constant_faults_does_not_grow() {
    let seed = seed();
    let (instance, servers) = Instance::start();
    let (each, mut count) = bearable(&servers, seed).await;
    let length = Duration::from_secs(if full() { 600 } else { 20 });
    let parts = length.as_millis() / (2 * each).as_millis().max(1);
    let requests = usize::try_from(parts).expect("few") * PART;
    let mut env = TestEnv::on(servers).await;
    let database = env.proxy_database();
    let worker = env.start_worker().await;
    let mut load = Load::mixed(&env, seed, requests).await;
    let (began, over) = (Instant::now(), std::sync::atomic::AtomicBool::new(false));
    let mut published = 0;
    let publishing = async {
        let mut pace = interval(2 * each);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for part in load.parts(PART) {
            pace.tick().await;
            load.publish_part(&env, part).await;
            published += part.len();
            if began.elapsed() > length {
                break;
            }
        }
        over.store(true, std::sync::atomic::Ordering::Release);
    };
    let is_over = || over.load(std::sync::atomic::Ordering::Acquire);
    let mut faults = 0;
    let faulting = async {
        let mut pace = interval(Duration::from_secs(if full() { 5 } else { 2 }));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.tick().await;
        while !is_over() {
            pace.tick().await;
            match faults % 6 {
                0 => terminate_sessions(&env).await,
                1 => drop(instance.control(&["close_all_connections", "soak"]).await),
                2 => instance.run_action("restart", "pg").await,
                3 => instance.run_action("restart", "rabbit").await,
                4 => instance.run_action("kill", "pg").await,
                _ => instance.run_action("kill", "rabbit").await,
            }
            if faults % 6 >= 4 {
                let server = if faults % 6 == 4 { "pg" } else { "rabbit" };
                instance.run_action("start-one", server).await;
            }
            faults += 1;
        }
    };
    let mut samples = Vec::new();
    let watching = async {
        let mut pace = interval(Duration::from_millis(500));
        while !is_over() {
            pace.tick().await;
            samples.extend(holding(&env, worker.pid()).await);
        }
    };
    tokio::join!(publishing, faulting, watching);
    println!("soak: {faults} faults in {:?}", began.elapsed());
    load.requests.truncate(published);
    let parses = database.parses();
    let most = parses.iter().max().copied().unwrap_or_default();
    println!(
        "soak: {} sessions, {most} statements prepared in one at most",
        parses.len()
    );
    if most > STATEMENTS {
        count
            .findings
            .push(format!("a session prepared {most} statements"));
    }
    assert_flat(&samples, &mut count);
    count += audit(&env, &load, vec![worker]).await;
    report("soak: half load, a fault every few seconds", faults, count);
}

/// How long a part takes when all is well, with the load's publisher and the reader of its events
/// beside.
async fn bearable(servers: &Servers, seed: u64) -> (Duration, AuditResult) {
    let env = TestEnv::on(servers.clone()).await;
    let worker = env.start_worker().await;
    let load = Load::mixed(&env, seed, 20 * PART).await;
    let began = Instant::now();
    load.publish(&env).await;
    let count = audit(&env, &load, vec![worker]).await;
    let each = began.elapsed() / 20;
    env.teardown().await;
    (each, count)
}

async fn terminate_sessions(env: &TestEnv) {
    let db = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let _ = db
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = \
                'revertd'",
        )
        .await;
}
