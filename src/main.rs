//! The program `revertd`: arguments, and dispatch.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

/// Sizes the stacks of threads, in bytes: the AMQP client parses headers on one of its own, by recursion, which only
/// this variable can size.
const STACK: &str = "RUST_MIN_STACK";

fn main() -> ExitCode {
    // The variable is read when the first thread starts, so it has to be there before this process is.
    if std::env::var_os(STACK).is_none() {
        let arguments = std::env::args_os().skip(1);
        if let Ok(program) = std::env::current_exe() {
            let error = Command::new(program)
                .args(arguments)
                .env(STACK, revertd::broker::STACK_BYTES.to_string())
                .exec();
            eprintln!("revertd: cannot start with a larger stack: {error}");
        }
    }
    revertd::seam::arm();
    revertd::cli::Cli::parse().run()
}
