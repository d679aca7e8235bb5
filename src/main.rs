//! The program `revertd`: arguments, and dispatch.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

/// Sizes the stacks of threads, in bytes: the AMQP client parses headers on one of its own, by recursion, which only
/// this variable can size.
const STACK: &str = "RUST_MIN_STACK";

/// Size from which on glibc gives an allocation pages of its own, in bytes, and takes them back when it is freed. By
/// default it raises that size as it goes, and bodies of requests leave holes that are never given back.
const OWN_PAGES: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "32768");

fn main() -> ExitCode {
    // The variables are read when the process starts, so they have to be there before it is.
    if std::env::var_os(STACK).is_none() {
        let arguments = std::env::args_os().skip(1);
        if let Ok(program) = std::env::current_exe() {
            let error = Command::new(program)
                .args(arguments)
                .env(STACK, revertd::broker::STACK_BYTES.to_string())
                .env(OWN_PAGES.0, OWN_PAGES.1)
                .exec();
            eprintln!("revertd: cannot start with a larger stack: {error}");
        }
    }
    revertd::common::failpoint::arm();
    revertd::cli::Cli::parse().run()
}
