//! Time limits: a run that makes no progress fails with a message.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;

/// Longest time without progress in a run, and longest time of a single step of its preparation.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Longest time of a step that writes millions of rows.
pub const LONG: Duration = Duration::from_mins(30);

/// The future's output, if the future completes within the limit.
pub async fn within<T, E>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T>
where
    E: Into<anyhow::Error>,
{
    timeout(limit, future)
        .await
        .with_context(|| format!("{what}: not done in {} s", limit.as_secs()))?
        .map_err(Into::into)
        .with_context(|| what.to_owned())
}

/// Watches a number that must change.
pub struct Progress {
    last: Option<u64>,
    since: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            last: None,
            since: Instant::now(),
        }
    }

    /// Fails if the number has not changed for too long.
    pub fn see(&mut self, number: u64) -> Result<()> {
        if self.last.replace(number) != Some(number) {
            self.since = Instant::now();
        }
        let still = self.since.elapsed();
        ensure!(
            still < PATIENCE,
            "no progress for {} s, at {number}",
            still.as_secs()
        );
        Ok(())
    }
}
