//! Duplicates and contradicting requests through three processes. One process is killed every
//! second or two, and both servers are restarted once.

use std::time::Duration;

use tokio::time::{interval, sleep};

use crate::instance::Instance;
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::report::{full, report, seed};
use crate::support::{TestEnv, WorkerProcess};

/// Kills one of the workers every second or two and starts another in its place, until `done`.
async fn kill_and_replace(
    env: &TestEnv,
    workers: &mut [WorkerProcess],
    seed: u64,
    done: impl AsyncFn() -> bool,
) -> usize {
    let mut kills = 0;
    loop {
        // The pace of the fault; nothing waits for it.
        sleep(Duration::from_millis(1000 + (seed >> (kills % 48)) % 1000)).await;
        if done().await {
            return kills;
        }
        let killed = kills % workers.len();
        workers[killed].kill();
        workers[killed] = env.spawn_worker();
        kills += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_survive_kills_and_restarts() {
    let seed = seed();
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "200");
    let distinct = if full() { 100_000 } else { 6000 };
    let load = Load::mixed(&env, seed, distinct).await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(env.start_worker().await);
    }
    let published = std::sync::atomic::AtomicBool::new(false);
    // Everything at least twice, and not one right after the other.
    let flood = async {
        load.publish(&env).await;
        load.publish(&env).await;
        published.store(true, std::sync::atomic::Ordering::Release);
    };
    let idle =
        async || published.load(std::sync::atomic::Ordering::Acquire) && env.waiting().await == 0;
    let kills = kill_and_replace(&env, &mut workers, seed, idle);
    let restarts = async {
        let mut later = interval(Duration::from_secs(if full() { 15 } else { 3 }));
        later.tick().await;
        later.tick().await;
        instance.run_action("restart", "rabbit").await;
        later.tick().await;
        instance.run_action("restart", "pg").await;
    };
    let ((), kills, ()) = tokio::join!(flood, kills, restarts);
    println!("{kills} kills");
    for worker in &mut workers {
        worker.ready().await;
    }
    let count = audit(&env, &load, workers).await;
    report(
        "storm: 3 processes, kill -9, both servers restarted",
        kills + 2,
        count,
    );
}
