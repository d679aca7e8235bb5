//! What follows from the end of a generation. Pure: the supervisor waits, logs and counts.

use crate::broker::BrokerError;
use crate::ledger::LedgerError;
use crate::ledger::admin::control::FleetState;
use crate::telemetry::TelemetryError;

/// Why the process ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database refuses, and waiting does not help.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The broker refuses, and waiting does not help.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Metrics can't be served, or spans can't be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The stop took longer than `worker.shutdown_timeout`. Unsettled messages are delivered again.
    #[error(
        "stopped before all messages in flight were settled (worker.shutdown_timeout); they will \
        be delivered again"
    )]
    Unfinished,
}

/// Why a worker, and with it its generation, ended.
#[derive(Debug)]
pub enum Exit {
    /// The process was told to stop, and every message in flight is settled.
    Stopped,
    /// The process was told to stop, and messages in flight are left.
    Unfinished,
    /// A worker task panicked, which is a bug.
    Panicked,
    /// The broker blocked its publishers for a while, and takes messages again.
    Unblocked,
    /// An operator paused the fleet.
    Paused(FleetState),
    /// The database failed.
    Ledger(LedgerError),
    /// The broker failed.
    Broker(BrokerError),
}

impl Exit {
    /// Of two workers' exits, the one that says more about what to do next.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    /// Whether the workers may finish the messages in flight within `worker.shutdown_timeout`.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Stopped | Self::Paused(_))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Stopped | Self::Unfinished | Self::Unblocked | Self::Paused(_) => 0,
            Self::Broker(_) => 1,
            Self::Ledger(_) => 2,
            Self::Panicked => 3,
        }
    }
}

/// How a generation ended.
#[derive(Debug)]
pub struct Report {
    /// Why it ended.
    pub exit: Exit,
    /// Whether its workers began to consume.
    pub was_ready: bool,
}

/// What the supervisor remembers from one generation to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether any generation began to consume. Until then a permanent error ends the process.
    pub ever_ready: bool,
    /// Whether a server failed: the next generation asks the broker for a greeting before the
    /// client connects.
    pub server_failed: bool,
}

/// What the supervisor does next.
#[derive(Debug)]
pub enum Next {
    /// End the process: all is done.
    Stop,
    /// End the process with this error.
    Fail(WorkerError),
    /// Begin a new generation at once.
    Restart,
    /// Wait for the backoff, then begin a new generation.
    RetryAfterPanic,
    /// The same after the database failed.
    RetryDatabase(LedgerError),
    /// The same after the broker failed.
    RetryBroker(BrokerError),
    /// Wait until an operator resumes the fleet, then begin a new generation.
    AwaitResume(FleetState),
}

/// What follows from the report of a generation.
#[must_use]
pub fn next(state: State, report: Report) -> (State, Next) {
    let ever_ready = state.ever_ready || report.was_ready;
    let after = |server_failed| State {
        ever_ready,
        server_failed,
    };
    match report.exit {
        Exit::Stopped => (after(false), Next::Stop),
        Exit::Unfinished => (after(false), Next::Fail(WorkerError::Unfinished)),
        Exit::Panicked => (after(false), Next::RetryAfterPanic),
        Exit::Unblocked => (after(false), Next::Restart),
        // A generation that did not begin leaves to the next one what it was to know.
        Exit::Paused(fleet) => {
            let server_failed = state.server_failed && !report.was_ready;
            (after(server_failed), Next::AwaitResume(fleet))
        }
        Exit::Ledger(error) if error.is_permanent() && !ever_ready => {
            (after(true), Next::Fail(error.into()))
        }
        Exit::Ledger(error) => (after(true), Next::RetryDatabase(error)),
        Exit::Broker(error) if error.is_permanent() && !ever_ready => {
            (after(true), Next::Fail(error.into()))
        }
        Exit::Broker(error) => (after(true), Next::RetryBroker(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetState {
        FleetState {
            paused: true,
            why: None,
            by: "operator".into(),
            as_role: "operator".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn ledger(permanent: bool) -> Exit {
        Exit::Ledger(if permanent {
            LedgerError::permanent("no such role")
        } else {
            LedgerError::transient("no connection")
        })
    }

    fn broker(permanent: bool) -> Exit {
        Exit::Broker(if permanent {
            BrokerError::permanent("no such virtual host")
        } else {
            BrokerError::transient("no connection")
        })
    }

    #[test]
    fn each_exit_has_its_consequence() {
        let table: [(Exit, bool, bool, &str, bool); 14] = [
            // exit, ever ready before, ready now => next, whether a server is taken to have failed
            (Exit::Stopped, false, true, "Stop", false),
            (Exit::Unfinished, false, true, "Fail(Unfinished", false),
            (Exit::Panicked, true, true, "RetryAfterPanic", false),
            (Exit::Unblocked, true, true, "Restart", false),
            (Exit::Unblocked, false, false, "Restart", false),
            (Exit::Paused(fleet()), false, true, "AwaitResume(", false),
            (ledger(false), false, false, "RetryDatabase(", true),
            (ledger(true), false, false, "Fail(Ledger(", true),
            (ledger(true), false, true, "RetryDatabase(", true),
            (ledger(true), true, false, "RetryDatabase(", true),
            (broker(false), false, false, "RetryBroker(", true),
            (broker(true), false, false, "Fail(Broker(", true),
            (broker(true), false, true, "RetryBroker(", true),
            (broker(true), true, false, "RetryBroker(", true),
        ];
        for (exit, ever_ready, was_ready, expected, server_failed) in table {
            let text = format!("{exit:?} {ever_ready} {was_ready}");
            let state = State {
                ever_ready,
                server_failed: false,
            };
            let (state, next) = next(state, Report { exit, was_ready });
            assert!(
                format!("{next:?}").starts_with(expected),
                "{text}: {next:?}"
            );
            assert_eq!(state.server_failed, server_failed, "{text}");
            assert_eq!(state.ever_ready, ever_ready || was_ready, "{text}");
        }
    }

    #[test]
    fn a_pause_before_the_start_keeps_a_failure() {
        let state = State {
            ever_ready: true,
            server_failed: true,
        };
        for was_ready in [false, true] {
            let exit = Exit::Paused(fleet());
            let (state, _) = next(state, Report { exit, was_ready });
            assert_eq!(state.server_failed, !was_ready);
        }
    }

    #[test]
    fn the_worse_exit_counts() {
        let worse = |one: Exit, other: Exit| format!("{:?}", one.worse(other));
        assert!(worse(Exit::Stopped, broker(false)).starts_with("Broker"));
        assert!(worse(ledger(false), broker(false)).starts_with("Ledger"));
        assert!(worse(ledger(false), Exit::Panicked).starts_with("Panicked"));
        assert!(worse(Exit::Stopped, Exit::Unblocked).starts_with("Stopped"));
    }
}
