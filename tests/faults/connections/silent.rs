//! Connections that stay open and carry no more bytes: only the worker's own timeouts notice them.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Network, Server, paused, report};
use crate::support::audit::AuditResult;
use crate::support::load::Load;
use crate::support::proxy::{Conditions, Direction, Ending};
use crate::support::report::{full, seed};

/// Longest until a silence is noticed.
const NOTICED: Duration = Duration::from_mins(1);

const DIRECTIONS: [&[Direction]; 3] = [
    &[Direction::ToServer],
    &[Direction::ToClient],
    &[Direction::ToServer, Direction::ToClient],
];

/// A server that falls silent, and the moment.
#[derive(Clone, Copy, Debug)]
struct Silence {
    server: Server,
    directions: &'static [Direction],
    /// Before there is anything to do, so that no answer is being waited for.
    idle: bool,
    /// Seconds between heartbeats, instead of the worker's default.
    heartbeat: Option<u32>,
}

/// With heartbeats of three seconds it takes six to nine.
#[tokio::test]
async fn a_silent_broker_is_noticed_by_heartbeats() {
    let silences = DIRECTIONS.map(|directions| Silence {
        server: Server::Broker,
        directions,
        idle: true,
        heartbeat: Some(3),
    });
    let (runs, count) = all(&silences).await;
    report("connection: broker silent, idle", runs, count);
}

/// The timeouts are those of production, about half a minute.
#[tokio::test]
async fn a_silent_server_is_noticed_within_a_minute() {
    let mut silences = Vec::new();
    for server in [Server::Database, Server::Broker] {
        for directions in DIRECTIONS {
            for idle in [true, false] {
                silences.push(Silence {
                    server,
                    directions,
                    idle,
                    heartbeat: None,
                });
            }
        }
    }
    if !full() {
        silences.retain(|silence| !silence.idle);
        silences.dedup_by_key(|silence| silence.server);
    }
    let (runs, count) = all(&silences).await;
    report("connection: silent", runs, count);
}

/// The server's side is gone, and the worker receives no notice.
#[tokio::test]
async fn a_half_open_connection_at_the_worker_loses_nothing() {
    let forgotten = async |server, heartbeat| {
        let network = Network::hearing(heartbeat, &[("WORKER__BATCH_MAX", "20")]).await;
        let load = Load::mixed(&network.env, seed(), 500).await;
        let worker = network.env.start_worker().await;
        tokio::join!(load.publish(&network.env), async {
            network.progress(NOTICED).await;
            network.proxy(server).end(Ending::ClientForgotten);
            let took = paused(&worker, 0, NOTICED).await;
            println!("{server:?} gone without a word: noticed after {took:?}");
        });
        network.count(&load, vec![worker]).await
    };
    let (runs, count) = if full() {
        let (mut count, database) = tokio::join!(
            forgotten(Server::Broker, None),
            forgotten(Server::Database, None)
        );
        count += database;
        (2, count)
    } else {
        (1, forgotten(Server::Broker, Some(3)).await)
    };
    report("connection: half open, server told", runs, count);
}

/// A start asks the database a few questions over a connection of its own; here it falls silent
/// among them.
#[tokio::test]
async fn a_database_silent_during_startup_is_retried() {
    let starting = async |after_bytes| {
        let network = Network::new(&[]).await;
        let load = Load::mixed(&network.env, seed(), 100).await;
        let proxy = &network.database;
        proxy.end_after(Direction::ToClient, after_bytes, Ending::ClientForgotten);
        let worker = network.env.spawn_worker();
        let took = paused(&worker, 0, NOTICED).await;
        println!("silent after {after_bytes} bytes of a start: noticed after {took:?}");
        load.publish(&network.env).await;
        network.count(&load, vec![worker]).await
    };
    // Within the login, and among the questions.
    let points = if full() {
        vec![50, 900, 1_200, 1_600]
    } else {
        vec![900]
    };
    let mut count = AuditResult::default();
    for one in join_all(points.iter().copied().map(starting)).await {
        count += one;
    }
    report(
        "connection: database silent at a start",
        points.len(),
        count,
    );
}

/// All at once, each on an environment of its own: they do little but wait.
async fn all(silences: &[Silence]) -> (usize, AuditResult) {
    let mut sum = AuditResult::default();
    for count in join_all(silences.iter().map(Silence::run)).await {
        sum += count;
    }
    (silences.len(), sum)
}

impl Silence {
    async fn run(&self) -> AuditResult {
        let network = Network::hearing(
            self.heartbeat,
            &[("WORKER__BATCH_MAX", "20"), ("WORKER__CONCURRENCY", "1")],
        )
        .await;
        let load = Load::mixed(&network.env, seed(), 300).await;
        let worker = network.env.start_worker().await;
        tokio::join!(load.publish(&network.env), async {
            if !self.idle {
                network.progress(NOTICED).await;
            }
            network
                .proxy(self.server)
                .set(Conditions::silent(self.directions));
            let took = paused(&worker, 0, NOTICED).await;
            println!("{self:?}: noticed after {took:?}");
            // New connections work again; those that fell silent never do.
            network.proxy(self.server).heal();
            network.progress(NOTICED).await;
        });
        network.count(&load, vec![worker]).await
    }
}
