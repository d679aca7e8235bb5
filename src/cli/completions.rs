//! `revertd completions`

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::written;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete in.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, mut definition: Command) -> anyhow::Result<ExitCode> {
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    // `print` would escape the tabs of the script.
    written(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
