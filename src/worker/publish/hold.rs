//! A wait with a batch in flight.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::error;

use super::super::shared::Shared;
use crate::broker::BrokerError;
use crate::common::backoff::Backoff;
use crate::telemetry;

/// The longest time for which a worker keeps a batch whose messages no queue takes. It is well
/// below the broker's acknowledgement timeout.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// A wait with a batch in flight, while the broker refuses its messages.
pub struct PublishHold {
    began: Instant,
    backoff: Backoff,
    /// Readiness shows the pause as long as this is there.
    refusing: Option<telemetry::PublishRefusal>,
}

impl PublishHold {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            refusing: None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.began.elapsed() >= HOLD_AT_MOST
    }

    /// Waits for the backoff. A stop waits with it, as long as it may.
    pub async fn wait(&mut self, shared: &Shared, error: &BrokerError) {
        let wait = self.backoff.next_wait();
        let event = "publishing_paused";
        error!(event, %error, retry_in = ?wait, "paused: publishing");
        let refused = || shared.telemetry.status.refused();
        self.refusing.get_or_insert_with(refused);
        sleep(wait).await;
    }
}
