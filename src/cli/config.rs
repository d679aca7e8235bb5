//! `revertd config`

use std::process::ExitCode;

use clap::Args;

use super::output::{Output, print, print_pretty};
use crate::config::Settings;

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Format: text in the syntax of the configuration file, or JSON.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(settings: &Settings, args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.output {
        Output::Text => print(&format!(
            "# read: {}\n{}",
            settings.sources,
            settings.to_toml()
        ))?,
        Output::Json => {
            say!("revertd: read: {}", settings.sources);
            print_pretty(&settings.effective())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
