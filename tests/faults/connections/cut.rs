//! Connections cut after any of their bytes: within a login, a statement, a delivery or a confirm.

use std::time::Duration;

use tokio::time::Instant;

use super::{Network, Server, report, until};
use crate::support::load::Load;
use crate::support::proxy::{Direction, Ending};
use crate::support::report::{full, seed};

const TIMEOUT: Duration = Duration::from_mins(1);

/// How long the full form goes on with one direction of one server.
const FULL: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_database_connection_cut_anywhere_loses_nothing() {
    cut_everywhere("connection: database cut after n bytes", Server::Database).await;
}

#[tokio::test]
async fn a_broker_connection_cut_anywhere_loses_nothing() {
    cut_everywhere("connection: broker cut after n bytes", Server::Broker).await;
}

async fn cut_everywhere(fault: &str, server: Server) {
    let (cuts, requests) = if full() { (400, 12_000) } else { (6, 800) };
    let network = Network::new(&[
        ("WORKER__BATCH_MAX", "5"),
        ("WORKER__CONCURRENCY", "2"),
        // Migrations run once, at the first start. The test cuts the later statements.
        ("DATABASE__MIGRATE_ON_START", "false"),
    ])
    .await;
    let seed = seed();
    let load = Load::mixed(&network.env, seed, requests).await;
    let proxy = network.proxy(server);
    let mut runs = 0;
    tokio::join!(load.publish(&network.env), async {
        // How much a connection carries, from its opening to the end of a few small batches.
        let mut worker = network.env.start_worker().await;
        until(TIMEOUT, "the first requests are decided", async || {
            network.outcomes().await >= 30
        })
        .await;
        assert!(worker.stop().await.success());
        // Measured before the first cut: a later connection may carry more than the rest of the
        // load.
        let most = [Direction::ToServer, Direction::ToClient]
            .map(|direction| (direction, proxy.most_bytes(direction)));
        for (direction, most) in most {
            let began = Instant::now();
            for n in 0..cuts {
                if began.elapsed() > FULL {
                    break;
                }
                let ending = if n % 2 == 0 {
                    Ending::Reset
                } else {
                    Ending::Close
                };
                cut(&network, server, direction, spread(seed, n, most), ending).await;
                runs += 1;
            }
        }
    });
    let last = network.env.start_worker().await;
    let count = network.count(&load, vec![last]).await;
    report(fault, runs, count);
}

/// A worker starts, meets the cut, and gets over it by itself.
async fn cut(network: &Network, server: Server, direction: Direction, after: u64, ending: Ending) {
    let proxy = network.proxy(server);
    let cuts = proxy.cuts();
    proxy.end_after(direction, after, ending);
    let mut worker = network.env.spawn_worker();
    let what = format!("{server:?} is cut after {after} bytes {direction:?}");
    until(TIMEOUT, &what, async || proxy.cuts() > cuts).await;
    network.progress(TIMEOUT).await;
    // Should the stop be the first to meet the cut, it ends with a failure.
    worker.stop().await;
}

/// The n-th point between 1 and `most`. The golden ratio spreads any number of them evenly, so that
/// the full form may stop at any time; the seed shifts them.
fn spread(seed: u64, n: u32, most: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let share = seed.wrapping_add(GOLDEN.wrapping_mul(u64::from(n) + 1));
    let point = (u128::from(share) * u128::from(most)) >> 64;
    u64::try_from(point).expect("at most `most`") + 1
}
