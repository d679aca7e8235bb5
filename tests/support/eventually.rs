//! Waits for a condition by checking it again and again.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Longest wait for something that must come. A test that exceeds it has failed.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// Checks the condition every 20 ms until it holds. It is for conditions without an event.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let checked = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, checked)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
