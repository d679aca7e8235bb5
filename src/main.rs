//! The program `revertd`: arguments, and dispatch.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    revertd::cli::Cli::parse().run()
}
