//! `revertd worker`

use std::process::ExitCode;

use super::signals;
use crate::config::Settings;
use crate::worker;

pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    Box::pin(worker::run(settings, signals::stop()?)).await?;
    Ok(ExitCode::SUCCESS)
}
