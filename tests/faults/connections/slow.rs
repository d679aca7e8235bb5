//! Slow networks: requests are delayed, and no failure is logged.

use std::time::Duration;

use super::{Network, pauses, report, until};
use crate::support::load::Load;
use crate::support::proxy::{Conditions, Way};
use crate::support::report::{full, seed};

/// Longest that a start may take.
const START: Duration = Duration::from_mins(2);

#[tokio::test]
async fn half_a_second_of_latency_only_delays() {
    let way = Way {
        delay: Duration::from_millis(500),
        ..Way::default()
    };
    let requests = if full() { 5_000 } else { 60 };
    work_through("connection: 500 ms late each way", way, requests).await;
}

#[tokio::test]
async fn a_network_of_20_kb_a_second_only_delays() {
    let way = Way {
        bytes_per_second: Some(20_000),
        ..Way::default()
    };
    let requests = if full() { 1_000 } else { 60 };
    work_through("connection: 20 kB a second", way, requests).await;
}

async fn work_through(fault: &str, way: Way, requests: usize) {
    let network = Network::new(&[]).await;
    let load = Load::mixed(&network.env, seed(), requests).await;
    let make_slow = || {
        network.database.set(Conditions::both(way));
        network.broker.set(Conditions::both(way));
    };
    // A start asks many questions, one after another; the quick form spares itself the wait.
    let worker = if full() {
        make_slow();
        let worker = network.env.spawn_worker();
        let took = until(START, "the worker is ready", async || {
            worker.log().contains(" ready")
        })
        .await;
        println!("{fault}: ready after {took:?}");
        worker
    } else {
        let worker = network.env.start_worker().await;
        make_slow();
        worker
    };
    let log = worker.log_handle();
    load.publish(&network.env).await;
    let count = network.count(&load, vec![worker]).await;
    report(fault, 1, count);
    assert_eq!(pauses(&log()), 0, "a slow network is no failure");
}
