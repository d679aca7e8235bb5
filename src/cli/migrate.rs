//! `revertd migrate`

use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde_json::json;

use super::Output;
use crate::ledger;
use crate::settings::Settings;

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &Args) -> anyhow::Result<ExitCode> {
    let applied = ledger::migrate(settings).await?.applied;
    match args.output {
        Output::Json => println!("{}", json!({ "applied": applied })),
        Output::Text if applied.is_empty() => println!("the schema is up to date"),
        Output::Text => applied.iter().for_each(|name| println!("applied {name}")),
    }
    Ok(ExitCode::SUCCESS)
}
