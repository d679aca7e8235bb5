//! The program `revertd`: arguments, and dispatch.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

/// What a publisher can nest into the headers of one frame, 26,000 levels, is parsed by the AMQP client by
/// recursion, on a thread of its own whose stack only this variable sizes: in bytes, reserved and not used. An
/// unoptimized build needs more a level.
const STACK: (&str, &str) = (
    "RUST_MIN_STACK",
    if cfg!(debug_assertions) {
        "536870912"
    } else {
        "67108864"
    },
);

fn main() -> ExitCode {
    // The variable is read when the first thread starts, so it has to be there before this process is.
    if std::env::var_os(STACK.0).is_none() {
        let arguments = std::env::args_os().skip(1);
        if let Ok(program) = std::env::current_exe() {
            let error = Command::new(program)
                .args(arguments)
                .env(STACK.0, STACK.1)
                .exec();
            eprintln!("revertd: cannot start with a larger stack: {error}");
        }
    }
    revertd::seam::arm();
    revertd::cli::Cli::parse().run()
}
