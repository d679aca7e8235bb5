//! `revertd worker`

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::Settings;
use crate::worker;

/// What a shell reports of a process that a signal ended: 128 and the signal's number.
const SIGINT_STATUS: i32 = 130;
const SIGTERM_STATUS: i32 = 143;

pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::spawn(on_signals(interrupt, terminate, stop.clone()));
    worker::run(settings, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// The first signal stops in order, the second at once: what is in hand is then delivered again.
async fn on_signals(mut interrupt: Signal, mut terminate: Signal, stop: CancellationToken) {
    loop {
        let status = tokio::select! {
            _ = interrupt.recv() => SIGINT_STATUS,
            _ = terminate.recv() => SIGTERM_STATUS,
        };
        if stop.is_cancelled() {
            warn!("second signal: stopped at once");
            std::process::exit(status);
        }
        info!("stopping: finishing what is in hand; a second signal ends it at once");
        stop.cancel();
    }
}
