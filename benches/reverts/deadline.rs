//! Nothing is waited for without end: a run that makes no progress fails, and says so.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;

/// Longest that a run may stand still, and that a single step of its making may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// For steps that write millions of rows.
pub const LONG: Duration = Duration::from_mins(30);

/// The future's output, where it comes in time.
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

/// Watches a number that has to move.
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

    /// Fails where it has been this number for too long.
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
