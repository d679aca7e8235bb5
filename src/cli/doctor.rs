//! `revertd doctor`

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{Output, print_pretty, written};
use crate::common::check::{CheckStatus, Checks};
use crate::config::{Settings, SettingsError};
use crate::{broker, ledger};

mod configuration;
mod layout;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut checks = configuration::check(settings);
    let (database, amqp) = tokio::join!(ledger::doctor(settings), broker::doctor(settings));
    checks.append(database);
    checks.append(amqp);
    tell(&checks, args)
}

/// The checks of an invalid configuration: all that need a connection are skipped.
pub fn misconfigured(error: &SettingsError, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut checks = Checks::default();
    checks.failed("configuration", error.diagnostic());
    for id in ["database-state", "amqp-state"] {
        checks.skipped(id, "cannot connect without a valid configuration");
    }
    tell(&checks, args)
}

fn tell(checks: &Checks, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let count = |status| checks.count(status);
    match args.output {
        Output::Json => {
            let all: Vec<_> = checks.iter().collect();
            let object = json!({
                "checks": all,
                "errors": count(CheckStatus::Error),
                "warnings": count(CheckStatus::Warning),
                "skipped": count(CheckStatus::Skipped),
            });
            print_pretty(&object)?;
        }
        Output::Text => {
            let stdout = std::io::stdout();
            let is_terminal = stdout.is_terminal();
            let width = rustix::termios::tcgetwinsize(&stdout)
                .ok()
                .map(|size| usize::from(size.ws_col))
                .filter(|columns| is_terminal && *columns > 0);
            let colour =
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
            written(&layout::text(checks, width, colour))?;
        }
    }
    Ok(if count(CheckStatus::Error) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
