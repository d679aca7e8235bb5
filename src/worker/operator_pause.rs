//! The pause that an operator puts on the fleet: every process reads it from the database.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::common::backoff::Backoff;
use crate::ledger::LedgerError;
use crate::ledger::admin::control::FleetState;
use crate::telemetry::Pause::Operator;

/// The wait between two polls, off by up to a half at random, so that a fleet does not poll in
/// step.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Returns once the fleet is paused. A transient error is logged and does not end the wait: while
/// the database is away, the workers notice that themselves, and take no request.
pub async fn requested(shared: &Shared) -> Result<FleetState, LedgerError> {
    let mut interval = interval();
    loop {
        sleep(interval.next_wait()).await;
        match shared.ledger.pause().await {
            Ok(Some(fleet)) => return Ok(fleet),
            Ok(None) => {}
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => {
                warn!(
                    event = "database_unavailable",
                    %error,
                    "cannot read whether the fleet is paused"
                );
            }
        }
    }
}

/// Waits until an operator resumes the fleet. The pause holds while the database does not answer.
/// Returns `false` if the process was told to stop.
pub async fn await_resume(shared: &Shared, fleet: &FleetState, stop: &CancellationToken) -> bool {
    warn!(
        event = "paused_by_operator",
        by = fleet.by,
        why = fleet.why,
        since = %fleet.at,
        "paused: by an operator; `revertd resume` ends it"
    );
    shared.telemetry.status.paused(Operator, fleet);
    let (mut interval, mut failing) = (interval(), false);
    loop {
        let poll = async {
            sleep(interval.next_wait()).await;
            shared.ledger.pause().await
        };
        let Some(polled) = stop.run_until_cancelled(poll).await else {
            return false;
        };
        match polled {
            Ok(Some(_)) => failing = false,
            Ok(None) => {
                info!(event = "resumed", "resumed");
                shared.telemetry.status.resumed();
                return true;
            }
            Err(error) => {
                if !failing {
                    error!(
                        event = "database_unavailable",
                        %error,
                        "still paused; cannot read whether the fleet is resumed"
                    );
                }
                failing = true;
            }
        }
    }
}

/// Waits that do not grow.
fn interval() -> Backoff {
    Backoff::new(POLL_INTERVAL, POLL_INTERVAL)
}
