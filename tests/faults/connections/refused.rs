//! Connections that are refused, at the start and during work.

use std::time::Duration;

use super::{Network, Server, paused, pauses, report, until};
use crate::support::load::Load;
use crate::support::proxy::Ending;
use crate::support::report::{full, seed};

const TIMEOUT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn refused_connections_are_retried() {
    let (rounds, requests) = if full() { (6, 6_000) } else { (1, 1_000) };
    let network = Network::new(&[("WORKER__BATCH_MAX", "20")]).await;
    let load = Load::mixed(&network.env, seed(), requests).await;
    network.database.refuse(true);
    network.broker.refuse(true);
    let worker = network.env.spawn_worker();
    tokio::join!(load.publish(&network.env), async {
        for server in [Server::Database, Server::Broker] {
            let proxy = network.proxy(server);
            until(TIMEOUT, "it is tried again", async || proxy.refused() >= 3).await;
            proxy.heal();
        }
        for _ in 0..rounds {
            for server in [Server::Broker, Server::Database] {
                network.progress(TIMEOUT).await;
                let proxy = network.proxy(server);
                let (refused, before) = (proxy.refused(), pauses(&worker.log()));
                proxy.refuse(true);
                proxy.end(Ending::Reset);
                paused(&worker, before, TIMEOUT).await;
                until(TIMEOUT, "it is tried again", async || {
                    proxy.refused() > refused
                })
                .await;
                proxy.heal();
            }
        }
        network.progress(TIMEOUT).await;
    });
    let count = network.count(&load, vec![worker]).await;
    report("connection: refused", 2 + 2 * rounds, count);
}
