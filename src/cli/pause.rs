//! `revertd pause` and `revertd resume`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::operator;
use super::output::{Output, print, print_json};
use super::terminal::visible;
use crate::config::Settings;
use crate::ledger::admin::control::{Control, FleetState};

#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Reason, for operators who find the fleet paused.
    #[arg(long, value_name = "TEXT", value_parser = text)]
    why: String,
    /// Name of the operator, for the record. Default: the user of this shell.
    #[arg(long, value_name = "NAME", value_parser = operator::name)]
    by: Option<String>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Reason, for the record.
    #[arg(long, value_name = "TEXT", value_parser = text)]
    why: Option<String>,
    /// Name of the operator, for the record. Default: the user of this shell.
    #[arg(long, value_name = "NAME", value_parser = operator::name)]
    by: Option<String>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn pause(settings: &Settings, args: PauseArgs) -> anyhow::Result<ExitCode> {
    let control = Control::open(settings).await?;
    let before = control.latest().await?.filter(|told| told.paused);
    let told = control
        .tell(true, Some(&args.why), operator::by(args.by).as_deref())
        .await?;
    if let Some(before) = &before {
        let before = visible(&before.to_string()).into_owned();
        say!("revertd: it was paused already, {before}; one resume ends both");
    }
    match args.output {
        Output::Json => print_json(&state(&told))?,
        Output::Text => print(&format!(
            "paused {}\nworkers stop taking requests within seconds; to go on: revertd resume\n",
            visible(&told.to_string())
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn resume(settings: &Settings, args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let control = Control::open(settings).await?;
    let before = control.latest().await?.filter(|told| told.paused);
    let told = control
        .tell(false, args.why.as_deref(), operator::by(args.by).as_deref())
        .await?;
    match (args.output, before) {
        (Output::Json, _) => print_json(&state(&told))?,
        (Output::Text, Some(before)) => print(&format!(
            "resumed; it was paused {}\nworkers take requests again within seconds\n",
            visible(&before.to_string())
        ))?,
        (Output::Text, None) => print("it was not paused\n")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn state(told: &FleetState) -> serde_json::Value {
    json!({
        "paused": told.paused,
        "why": told.why,
        "by": told.by,
        "as": told.as_role,
        "at": told.at,
    })
}

fn text(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 512;
    if !fits || text.chars().any(char::is_control) {
        return Err("must be 1 to 512 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}
