//! What the workers of a process share.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::crash_journal::CrashJournal;
use super::logs::Logs;
use super::publish::SilentQueues;
use super::telemetry::{TelemetryServer, WorkerTelemetry};
use crate::broker::Delivery;
use crate::config::Settings;
use crate::domain::retry::Ladder;
use crate::ledger::Ledger;

use super::state::WorkerError;

/// The settings, the ledger and the records of a process. Generations come and go; this stays.
pub struct Shared {
    pub settings: Settings,
    pub ledger: Ledger,
    pub journal: CrashJournal,
    pub ladder: Ladder,
    pub retry_queues: Vec<String>,
    pub telemetry: WorkerTelemetry,
    pub logs: Logs,
    pub silent_queues: SilentQueues,
    settled: AtomicU64,
}

impl Shared {
    /// Prepares the ledger and serves the telemetry; connects to no server yet.
    pub fn new(
        settings: Settings,
        stop: &CancellationToken,
    ) -> Result<(Self, TelemetryServer), WorkerError> {
        let ledger = Ledger::new(&settings)?;
        let (telemetry, server) = WorkerTelemetry::open(&settings, &ledger, stop)?;
        let shared = Self {
            journal: CrashJournal::new(ledger.clone(), settings.worker.batch_max),
            ledger,
            ladder: settings.ladder(),
            retry_queues: settings.retry_queues(),
            telemetry,
            logs: Logs::default(),
            silent_queues: SilentQueues::default(),
            settled: AtomicU64::new(0),
            settings,
        };
        Ok((shared, server))
    }

    /// The number of batches that were settled since the process started.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Counts a settled batch: both servers worked.
    pub fn batch_settled(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs copies of events that did not reach the queue named by `reply_to`.
    pub fn copies_failed(&self, copies: usize, error: &str) {
        (0..copies).for_each(|_| self.telemetry.counters.copy_failed());
        self.logs.copies_failed(copies, error);
    }

    /// Counts and logs a request whose `reply_to` names a queue to which no copy may go.
    pub fn reply_to_refused(&self, delivery: &Delivery, queue: &str) {
        self.telemetry.counters.reply_to_refused();
        self.logs.reply_to_refused(delivery, queue);
    }
}
