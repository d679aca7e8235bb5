//! `revertd health`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{Output, print};
use super::terminal::visible;
use crate::config::Settings;
use crate::telemetry;

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Format: a line of text, or a JSON object.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let listen = settings.telemetry.listen.context(
        "telemetry.listen is not set, so the process has no readiness endpoint; \
         set it to the same address for the process and for this command",
    )?;
    let health = telemetry::health(listen.0).await;
    let health = health.map_err(|why| visible(&why).into_owned());
    print(&match (args.output, &health) {
        (Output::Text, Ok(())) => "ready\n".into(),
        (Output::Text, Err(why)) => format!("not ready: {why}\n"),
        (Output::Json, Ok(())) => format!("{}\n", json!({"ready": true})),
        (Output::Json, Err(why)) => format!("{}\n", json!({"ready": false, "why": why})),
    })?;
    Ok(match health {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}
