//! The worker: the only loop, the only orchestrator.
//!
//! A pool of workers runs in generations. A generation connects, consumes, and ends as a whole: when it is told
//! to stop, when the database or the broker fails, or when a worker breaks off. What it had in hand and did not
//! settle is delivered again; nothing else is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::broker::{BrokerError, Delivery};
use crate::common::backoff::Backoff;
use crate::config::Settings;
use crate::domain::retry::Ladder;
use crate::ledger::admin::control::FleetState;
use crate::ledger::{self, Ledger, LedgerError};
use crate::telemetry::{Pause, TelemetryError};
use crash_journal::CrashJournal;
use logs::Logs;
use telemetry::WorkerTelemetry;

mod batch;
mod batch_recorder;
mod copies;
mod crash_journal;
mod generation;
mod logs;
mod messages;
mod pause;
mod publish;
mod telemetry;
/// The waits between generations that fail.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why the pool can't start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database needs somebody's attention before the pool can start.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// So does the broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// What is to be shown of the process can't be.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
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
    journal: CrashJournal,
    ladder: Ladder,
    retry_queues: Vec<String>,
    telemetry: WorkerTelemetry,
    logs: Logs,
    /// Batches that were settled: the servers worked.
    settled: AtomicU64,
}

impl Shared {
    /// So many copies to `reply_to` did not arrive.
    fn copies_failed(&self, copies: usize, reason: &str) {
        (0..copies).for_each(|_| self.telemetry.counters.copy_failed());
        self.logs.copies_failed(copies, reason);
    }

    /// A request names a queue in `reply_to` to which no copy may go.
    fn reply_to_refused(&self, delivery: &Delivery, queue: &str) {
        self.telemetry.counters.reply_to_refused();
        self.logs.reply_to_refused(delivery, queue);
    }
}

/// What a generation takes over from the one before.
#[derive(Default)]
struct Handover {
    /// Whether the broker or the database failed.
    failed: bool,
}

/// Why a worker, and with it the generation, ended.
enum Exit {
    Stopped,
    /// A bug; what was in hand may hold its cause.
    Panicked,
    /// The broker took no messages for a while, and does again.
    Unblocked,
    /// The fleet is to take no requests; what was in hand is finished.
    Paused(FleetState),
    Ledger(LedgerError),
    Broker(BrokerError),
}

/// Runs the pool until `stop`, and returns what it did.
///
/// # Errors
/// Where it could not start for a cause that lasts, or not finish in time.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), WorkerError> {
    let ledger = Ledger::new(&settings)?;
    let (telemetry, server) = WorkerTelemetry::open(&settings, &ledger, &stop)?;
    let shared = Arc::new(Shared {
        journal: CrashJournal::new(ledger.clone(), settings.worker.batch_max),
        ledger,
        ladder: settings.ladder(),
        retry_queues: settings.retry_queues(),
        telemetry,
        logs: Logs::default(),
        settled: AtomicU64::new(0),
        settings,
    });
    let pool = Pool {
        shared: shared.clone(),
        stop,
        assured: AtomicBool::new(false),
    };
    let result = tokio::select! {
        result = pool.run() => result,
        never = server.look(&shared) => match never {},
    };
    info!(tally = %shared.telemetry.counters, "stopped");
    server.close().await;
    result
}

struct Pool {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Whether the broker was found to lose nothing.
    assured: AtomicBool,
}

impl Pool {
    async fn run(&self) -> Result<(), WorkerError> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        if !self.prepare_schema(&mut backoff).await? {
            return Ok(());
        }
        let mut next = Handover::default();
        let mut ever_ready = false;
        loop {
            let mut ready = false;
            let settled = self.settled();
            let end = self.generation(&next, &mut ready).await?;
            ever_ready |= ready;
            if self.settled() > settled {
                // What works now and then is not hammered by trying it at once.
                backoff.reset();
            }
            if let Exit::Paused(told) = &end {
                // What a generation that never began was to take over, the next one is.
                if ready {
                    next = Handover::default();
                }
                if !self.sit_out(told).await {
                    return Ok(());
                }
                backoff.reset();
                continue;
            }
            next = Handover::default();
            let wait = match end {
                Exit::Stopped | Exit::Paused(_) => return Ok(()),
                Exit::Unblocked => Duration::ZERO,
                Exit::Panicked => backoff.next_wait(),
                Exit::Broker(error) if error.is_permanent() && !ever_ready => {
                    return Err(error.into());
                }
                Exit::Ledger(error) if error.is_permanent() && !ever_ready => {
                    return Err(error.into());
                }
                Exit::Broker(error) => {
                    next.failed = true;
                    self.pause(Pause::Broker, &error, &mut backoff)
                }
                Exit::Ledger(error) => {
                    next.failed = true;
                    self.pause(Pause::Database, &error, &mut backoff)
                }
            };
            if self.stopped_within(wait).await {
                return Ok(());
            }
        }
    }

    fn settled(&self) -> u64 {
        self.shared.settled.load(Ordering::Relaxed)
    }

    /// Migrates or checks the schema, however long the database takes to appear. `false`: stopped meanwhile.
    async fn prepare_schema(&self, backoff: &mut Backoff) -> Result<bool, LedgerError> {
        let settings = &self.shared.settings;
        loop {
            let prepared = async {
                if settings.database.migrate_on_start {
                    let migrated = ledger::migrate(settings).await?;
                    for name in migrated.applied {
                        info!(migration = name, "applied");
                    }
                } else {
                    ledger::check(settings).await?;
                }
                self.shared.ledger.assure(settings).await
            };
            let prepared = tokio::select! {
                prepared = prepared => prepared,
                () = self.stop.cancelled() => return Ok(false),
            };
            match prepared {
                Ok(()) => {
                    backoff.reset();
                    return Ok(true);
                }
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => {
                    let wait = backoff.next_wait();
                    error!(error = %error, retry_in = ?wait, "waiting for the database");
                    self.shared.telemetry.status.paused(Pause::Database, &error);
                    if self.stopped_within(wait).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn pause(
        &self,
        pause: Pause,
        error: &dyn std::error::Error,
        backoff: &mut Backoff,
    ) -> Duration {
        let wait = backoff.next_wait();
        error!(error = %error, retry_in = ?wait, "paused: {pause}");
        self.shared.telemetry.status.paused(pause, &error);
        wait
    }

    async fn stopped_within(&self, wait: Duration) -> bool {
        timeout(wait, self.stop.cancelled()).await.is_ok()
    }
}
