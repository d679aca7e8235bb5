//! `revertd gateway`

use std::process::ExitCode;

use super::signals;
use crate::config::Settings;
use crate::gateway;

pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let finished = gateway::run(settings, signals::stop()?).await?;
    Ok(if finished {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
