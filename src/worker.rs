//! The worker: the only loop, the only orchestrator.
//!
//! A pool of workers runs in generations. A generation connects, consumes, and ends as a whole: when it is told
//! to stop, when the database or the broker fails, or when the deliveries call for another pace. What it had
//! in hand and did not settle is delivered again; nothing else is remembered, but the requests that found the
//! database failing, with which it is tried before the next generation begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::broker::BrokerError;
use crate::ledger::{self, Ledger, LedgerError};
use crate::patience::Patience;
use crate::request::RevertRequest;
use crate::retry::Ladder;
use crate::settings::Settings;

mod batch;
mod generation;
mod replies;
mod tally;

pub use tally::Tally;

/// The waits between generations that fail.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why the pool can't start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database needs somebody's attention before the pool can start.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// So does the broker.
    #[error("{0}")]
    Broker(#[from] BrokerError),
    /// The stop took longer than `worker.shutdown_timeout`; what was in hand is delivered again.
    #[error(
        "stopped before all work in hand was done (worker.shutdown_timeout); it will be delivered again"
    )]
    Unfinished,
}

/// What the workers of a process share.
struct Shared {
    settings: Settings,
    ledger: Ledger,
    ladder: Ladder,
    retry_queues: Vec<String>,
    own_queues: std::collections::BTreeSet<String>,
    tally: Tally,
    /// Generations that the database or the broker ended: each had what was in hand delivered again, which
    /// is no reason to suspect a message.
    failures: AtomicU32,
}

/// How many deliveries a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As many as configured.
    Full,
    /// One in the whole process, for as long as it may be what breaks the connection or the worker: whatever
    /// else was in hand would be delivered again with it, and once too often in the end.
    Careful,
}

/// What a generation takes over from the one before.
struct Beginning {
    pace: Pace,
    /// The requests that found the database failing.
    held: Vec<RevertRequest>,
    /// Whether the topology was in order a moment ago: nothing but the pace changed since.
    topology_checked: bool,
}

/// Why a worker, and with it the generation, ended.
enum End {
    Stopped,
    Repaced(Pace),
    Ledger(LedgerError, Vec<RevertRequest>),
    Broker(BrokerError),
}

/// Runs the pool until `stop`, and returns what it did.
///
/// # Errors
/// Where it could not start for a cause that lasts, or not finish in time.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), WorkerError> {
    let ledger = Ledger::new(&settings)?;
    let shared = Arc::new(Shared {
        ledger,
        ladder: settings.ladder(),
        retry_queues: settings.retry_queues(),
        own_queues: settings.own_queues(),
        tally: Tally::default(),
        failures: AtomicU32::new(0),
        settings,
    });
    let pool = Pool {
        shared: shared.clone(),
        stop,
    };
    let result = pool.run().await;
    info!(tally = %shared.tally, "stopped");
    result
}

struct Pool {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Pool {
    async fn run(&self) -> Result<(), WorkerError> {
        let mut patience = Patience::new(FIRST_WAIT, LONGEST_WAIT);
        if !self.prepare_schema(&mut patience).await? {
            return Ok(());
        }
        let mut next = Beginning {
            pace: Pace::Full,
            held: Vec::new(),
            topology_checked: false,
        };
        let mut ever_ready = false;
        loop {
            let began = Instant::now();
            let mut ready = false;
            let end = self.generation(&next, &mut ready).await?;
            next.held.clear();
            next.topology_checked = ready;
            ever_ready |= ready;
            if ready && began.elapsed() > LONGEST_WAIT {
                patience.reset();
            }
            if ready && matches!(end, End::Broker(_) | End::Ledger(..)) {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
            }
            let wait = match end {
                End::Stopped => return Ok(()),
                End::Repaced(pace) => {
                    next.pace = pace;
                    Duration::ZERO
                }
                // Each time, the broker counts a delivery; when it has counted enough, it removes the message.
                End::Broker(wrong) if wrong.is_unparseable() => {
                    if next.pace != Pace::Careful {
                        warn!(reason = %wrong, "consuming one at a time until the broker removes it");
                    }
                    next.pace = Pace::Careful;
                    // It may have come before the generation was ready, but it came from the queue.
                    next.topology_checked = true;
                    Duration::from_millis(10)
                }
                End::Broker(wrong) if wrong.is_lasting() && !ever_ready => return Err(wrong.into()),
                End::Ledger(wrong, _) if wrong.is_lasting() && !ever_ready => {
                    return Err(wrong.into());
                }
                End::Broker(wrong) => {
                    let wait = patience.next_wait();
                    error!(reason = %wrong, retry_in = ?wait, "paused: the broker");
                    next.topology_checked = false;
                    wait
                }
                End::Ledger(wrong, requests) => {
                    let wait = patience.next_wait();
                    error!(reason = %wrong, retry_in = ?wait, "paused: the database");
                    next.held = requests;
                    next.topology_checked = false;
                    wait
                }
            };
            if self.stopped_within(wait).await {
                return Ok(());
            }
        }
    }

    /// Migrates or checks the schema, however long the database takes to appear. `false`: stopped meanwhile.
    async fn prepare_schema(&self, patience: &mut Patience) -> Result<bool, LedgerError> {
        let settings = &self.shared.settings;
        loop {
            let prepared = async {
                if settings.database.migrate_on_start {
                    let migrated = ledger::migrate(settings).await?;
                    for name in migrated.applied {
                        info!(migration = name, "applied");
                    }
                    Ok(())
                } else {
                    ledger::check(settings).await
                }
            };
            let prepared = tokio::select! {
                prepared = prepared => prepared,
                () = self.stop.cancelled() => return Ok(false),
            };
            match prepared {
                Ok(()) => {
                    patience.reset();
                    return Ok(true);
                }
                Err(wrong) if wrong.is_lasting() => return Err(wrong),
                Err(wrong) => {
                    let wait = patience.next_wait();
                    error!(reason = %wrong, retry_in = ?wait, "waiting for the database");
                    if self.stopped_within(wait).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    async fn stopped_within(&self, wait: Duration) -> bool {
        timeout(wait, self.stop.cancelled()).await.is_ok()
    }
}
