//! `revertd migrate`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{Output, print, print_json};
use crate::config::Settings;
use crate::ledger;

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let applied = ledger::migrate(settings).await?.applied;
    match args.output {
        Output::Json => print_json(&json!({ "applied": applied }))?,
        Output::Text if applied.is_empty() => print("the schema is up to date\n")?,
        Output::Text => {
            for name in &applied {
                print(&format!("applied {name}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
