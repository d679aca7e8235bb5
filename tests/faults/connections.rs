//! Network faults between the worker and its servers: lost answers, and connections that are cut,
//! silent, half open, slow or refused. The servers themselves work throughout.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::audit::{AuditResult, audit};
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::report::report;
use crate::support::{TestEnv, WorkerProcess};

mod cut;
mod lost;
mod refused;
mod silent;
mod slow;

/// An environment whose workers reach both servers through proxies.
struct Network {
    env: TestEnv,
    database: Proxy,
    broker: Proxy,
}

impl Network {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let mut env = TestEnv::new().await;
        for (key, value) in settings {
            env.set(key, value);
        }
        Self {
            database: env.proxy_database(),
            broker: env.proxy_amqp(),
            env,
        }
    }

    /// The same with this many seconds between heartbeats, instead of the worker's default.
    async fn hearing(heartbeat: Option<u32>, settings: &[(&str, &str)]) -> Self {
        let mut network = Self::new(settings).await;
        if let Some(seconds) = heartbeat {
            let url = network.broker.instead_of(&network.env.servers.amqp);
            network
                .env
                .set("AMQP__URL", &format!("{url}?heartbeat={seconds}"));
        }
        network
    }

    fn proxy(&self, server: Server) -> &Proxy {
        match server {
            Server::Database => &self.database,
            Server::Broker => &self.broker,
        }
    }

    async fn outcomes(&self) -> i64 {
        let query = "SELECT count(*) FROM revertd.outcomes";
        self.env.count(query).await
    }

    /// Waits until something more is decided than by now.
    async fn progress(&self, limit: Duration) {
        let before = self.outcomes().await;
        until(limit, "work goes on", async || {
            self.outcomes().await > before
        })
        .await;
    }

    /// Counts, and removes the environment.
    async fn count(self, load: &Load, workers: Vec<WorkerProcess>) -> AuditResult {
        let count = audit(&self.env, load, workers).await;
        // With them go the connections that only a server still has, which would hold up its end.
        drop((self.database, self.broker));
        self.env.teardown().await;
        count
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Database,
    Broker,
}

/// Asks until it is so, and tells how long that took.
async fn until(limit: Duration, what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// Waits until a worker's log has more than `before` lines that say that it paused.
async fn paused(worker: &WorkerProcess, before: usize, limit: Duration) -> Duration {
    until(limit, "the worker notices", async || {
        pauses(&worker.log()) > before
    })
    .await
}

/// How often a worker says that it had to wait for one of its servers.
fn pauses(log: &str) -> usize {
    log.matches("paused: ").count() + log.matches("waiting for the ").count()
}
