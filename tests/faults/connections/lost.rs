//! Answers of the database that never arrive: the statement committed all the same, or its session
//! hangs.

use std::time::Duration;

use super::{Network, paused, pauses, report, until};
use crate::support::TestEnv;
use crate::support::load::Load;
use crate::support::proxy::{Conditions, Ending, Way};
use crate::support::report::{full, seed};

/// How often one worker loses an answer before another takes its place: the waits between its tries
/// grow.
const LOSSES_OF_A_WORKER: u64 = 4;

const TIMEOUT: Duration = Duration::from_mins(1);

/// A redelivered message goes to the same worker, or to a second worker whose connection has no
/// faults.
#[tokio::test]
async fn lost_answers_to_commits_lose_nothing() {
    let (losses, requests) = if full() { (200, 12_000) } else { (10, 700) };
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "5");
    env.set("WORKER__CONCURRENCY", "2");
    // The calm worker goes past the losing proxy; slowly, so that it leaves the others enough to
    // do.
    let broker = env.proxy_amqp();
    broker.set_new(Conditions::both(Way {
        delay: Duration::from_millis(100),
        ..Way::default()
    }));
    let calm = env.start_worker().await;
    broker.set_new(Conditions::default());
    let network = Network {
        database: env.proxy_database(),
        broker,
        env,
    };
    let load = Load::mixed(&network.env, seed(), requests).await;
    let fault = async {
        network.database.lose_commits(3);
        while network.database.lost() < losses {
            let enough = (network.database.lost() + LOSSES_OF_A_WORKER).min(losses);
            let mut losing = network.env.spawn_worker();
            until(TIMEOUT, "answers are lost", async || {
                network.database.lost() >= enough
            })
            .await;
            // Its stop may meet the next loss, and then ends with a failure.
            losing.stop().await;
        }
        network.database.heal();
    };
    tokio::join!(load.publish(&network.env), fault);
    let runs = network.database.lost();
    let last = network.env.start_worker().await;
    let count = network.count(&load, vec![calm, last]).await;
    let runs = usize::try_from(runs).expect("few");
    report("connection: the answer to a commit lost", runs, count);
}

/// The worker sees the end of its connection. The server does not, and keeps the locks and messages
/// of the session.
#[tokio::test]
async fn a_half_open_connection_at_the_server_loses_nothing() {
    let heartbeat = if full() { None } else { Some(3) };
    let network = Network::hearing(heartbeat, &[("WORKER__BATCH_MAX", "20")]).await;
    let (rounds, requests) = if full() { (5, 6_000) } else { (1, 600) };
    let load = Load::mixed(&network.env, seed(), requests).await;
    let worker = network.env.start_worker().await;
    tokio::join!(load.publish(&network.env), async {
        for _ in 0..rounds {
            // An idle connection that ends is replaced without a log line. A connection in use
            // causes a pause.
            network.progress(TIMEOUT).await;
            network.database.end(Ending::ServerForgotten);
            network.progress(TIMEOUT).await;
            // While it pauses, it has no connection to the broker that could end.
            until(TIMEOUT, "the worker works", async || {
                is_ready(&worker.log())
            })
            .await;
            let before = pauses(&worker.log());
            network.broker.end(Ending::ServerForgotten);
            paused(&worker, before, TIMEOUT).await;
        }
    });
    let count = network.count(&load, vec![worker]).await;
    report("connection: half open, worker told", 2 * rounds, count);
}

/// Whether the last that a worker says of its state is that it works.
fn is_ready(log: &str) -> bool {
    log.rfind(" ready") > log.rfind("paused: ")
}
