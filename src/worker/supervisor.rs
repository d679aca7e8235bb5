//! The supervisor: one generation after another, until the process is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::generation::Generations;
use super::operator_pause;
use super::shared::Shared;
use super::state::{Next, State, WorkerError, next};
use crate::common::backoff::Backoff;
use crate::config::Settings;
use crate::ledger::{self, LedgerError};
use crate::telemetry::Pause;

/// The waits between generations that fail.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Runs the workers of a process until `stop`.
///
/// # Errors
/// If the process can't start because of a permanent error, or can't stop in time.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), WorkerError> {
    let (shared, server) = Shared::new(settings, &stop)?;
    let shared = Arc::new(shared);
    let mut supervisor = Supervisor {
        shared: shared.clone(),
        stop,
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
    };
    let status = &shared.telemetry.status;
    let polling = server.poll(&shared.settings, &shared.ledger, status);
    let result = tokio::select! {
        result = supervisor.run() => result,
        never = polling => match never {},
    };
    info!(event = "stopped", tally = %shared.telemetry.counters, "stopped");
    server.close().await;
    result
}

struct Supervisor {
    shared: Arc<Shared>,
    stop: CancellationToken,
    backoff: Backoff,
}

impl Supervisor {
    async fn run(&mut self) -> Result<(), WorkerError> {
        if !self.prepare_schema().await? {
            return Ok(());
        }
        let generations = Generations::new(self.shared.clone(), self.stop.clone());
        let mut state = State::default();
        loop {
            let settled = self.shared.settled();
            let report = generations.run(state.server_failed).await;
            if self.shared.settled() > settled {
                self.backoff.reset();
            }
            let after;
            (state, after) = next(state, report);
            let goes_on = match after {
                Next::Stop => return Ok(()),
                Next::Fail(error) => return Err(error),
                Next::Restart => !self.stop.is_cancelled(),
                Next::RetryAfterPanic => {
                    let wait = self.backoff.next_wait();
                    !self.stopped_within(wait).await
                }
                Next::RetryDatabase(error) => self.retry(Pause::Database, &error).await,
                Next::RetryBroker(error) => self.retry(Pause::Broker, &error).await,
                Next::AwaitResume(fleet) => {
                    let resumed = operator_pause::await_resume(&self.shared, &fleet, &self.stop);
                    let resumed = resumed.await;
                    self.backoff.reset();
                    resumed
                }
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Migrates or checks the schema, and waits for the database as long as that takes. Returns
    /// `false` if the process was told to stop meanwhile.
    async fn prepare_schema(&mut self) -> Result<bool, LedgerError> {
        loop {
            let prepared = tokio::select! {
                prepared = prepare_schema(&self.shared) => prepared,
                () = self.stop.cancelled() => return Ok(false),
            };
            match prepared {
                Ok(()) => {
                    self.backoff.reset();
                    return Ok(true);
                }
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => {
                    if !self.retry(Pause::Database, &error).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Logs the pause and waits for the backoff. Returns `false` if the process was told to stop.
    async fn retry(&mut self, pause: Pause, error: &dyn std::error::Error) -> bool {
        let wait = self.backoff.next_wait();
        let event = match pause {
            Pause::Database => "database_unavailable",
            Pause::Broker => "broker_unavailable",
            Pause::Publishing | Pause::Operator => "paused",
        };
        error!(event, %error, retry_in = ?wait, "paused: {pause}");
        self.shared.telemetry.status.paused(pause, &error);
        !self.stopped_within(wait).await
    }

    async fn stopped_within(&self, wait: Duration) -> bool {
        timeout(wait, self.stop.cancelled()).await.is_ok()
    }
}

async fn prepare_schema(shared: &Shared) -> Result<(), LedgerError> {
    let settings = &shared.settings;
    if settings.database.migrate_on_start {
        let migrated = ledger::migrate(settings).await?;
        for name in migrated.applied {
            info!(
                event = "migration_applied",
                migration = name,
                "applied a migration"
            );
        }
    } else {
        ledger::check(settings).await?;
    }
    shared.ledger.assure(settings).await
}
