//! `revertd man`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command};

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write to; it is created if it is missing. It gets revertd.1, and a page for each
    /// command, such as revertd-worker.1.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn run(args: &ManArgs, definition: Command) -> anyhow::Result<ExitCode> {
    let folder = args.folder.display();
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot create {folder}"))?;
    clap_mangen::generate_to(definition, &args.folder)
        .with_context(|| format!("cannot write into {folder}"))?;
    Ok(ExitCode::SUCCESS)
}
