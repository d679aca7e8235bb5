//! The pause that an operator puts on the fleet: seen by looking every few seconds, and waited out.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Pool, Shared};
use crate::common::backoff::Backoff;
use crate::ledger::LedgerError;
use crate::ledger::admin::control::FleetState;
use crate::telemetry::Pause::Operator;

/// Between two looks, off by up to a half at random, so that a fleet doesn't look in step.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

impl Shared {
    /// Returns once the fleet is paused. Where the database does not say for a while, the workers find out why by
    /// themselves, and nothing can be taken meanwhile; what won't pass by itself ends the wait.
    pub(super) async fn paused(&self) -> Result<FleetState, LedgerError> {
        let mut looks = looks();
        loop {
            sleep(looks.next_wait()).await;
            match self.ledger.pause().await {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => {}
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => warn!(error = %error, "cannot see whether the fleet is paused"),
            }
        }
    }
}

impl Pool {
    /// Waits until the fleet is told to go on, with nothing in hand. A database that does not answer meanwhile does
    /// not end the pause. `false`: stopped.
    pub(super) async fn sit_out(&self, state: &FleetState) -> bool {
        warn!(by = state.by, why = state.why, since = %state.at, "paused: by an operator; revertd resume ends it");
        self.shared.telemetry.status.paused(Operator, state);
        let (mut looks, mut silent) = (looks(), false);
        loop {
            let look = async {
                sleep(looks.next_wait()).await;
                self.shared.ledger.pause().await
            };
            let seen = tokio::select! {
                seen = look => seen,
                () = self.stop.cancelled() => return false,
            };
            match seen {
                Ok(Some(_)) => silent = false,
                Ok(None) => {
                    info!("resumed");
                    self.shared.telemetry.status.resumed();
                    return true;
                }
                Err(error) => {
                    if !silent {
                        error!(error = %error, "still paused; cannot see whether to go on");
                    }
                    silent = true;
                }
            }
        }
    }

    /// The pause in force, at the beginning of a generation.
    pub(super) async fn look(&self) -> Result<Option<FleetState>, LedgerError> {
        self.shared.ledger.pause().await
    }
}

/// Waits that do not grow.
fn looks() -> Backoff {
    Backoff::new(BETWEEN_LOOKS, BETWEEN_LOOKS)
}
