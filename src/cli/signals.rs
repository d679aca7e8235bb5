//! SIGTERM and SIGINT of the commands that run until they are stopped.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit statuses of a process that a signal ended, as a shell reports them: 128 plus the signal's
/// number.
const SIGINT_STATUS: i32 = 130;
const SIGTERM_STATUS: i32 = 143;

/// A token that the first signal cancels. The second signal ends the process.
pub fn stop() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::spawn(on_signals(interrupt, terminate, stop.clone()));
    Ok(stop)
}

/// The first signal stops in order, the second at once: unacknowledged requests are then delivered
/// again.
async fn on_signals(mut interrupt: Signal, mut terminate: Signal, stop: CancellationToken) {
    loop {
        let status = tokio::select! {
            _ = interrupt.recv() => SIGINT_STATUS,
            _ = terminate.recv() => SIGTERM_STATUS,
        };
        if stop.is_cancelled() {
            warn!(
                event = "stopped_at_once",
                "second signal: the process ends at once"
            );
            std::process::exit(status);
        }
        info!(
            event = "stopping",
            "stopping: finishing the work in flight; a second signal ends the process at once"
        );
        stop.cancel();
    }
}
