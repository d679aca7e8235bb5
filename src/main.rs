//! The program `revertd`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

/// Size of thread stacks, in bytes. The AMQP client parses headers by recursion on a thread that it
/// starts itself, and only this variable sets that thread's stack size.
const STACK: &str = "RUST_MIN_STACK";

/// Size in bytes from which glibc maps an allocation separately and unmaps it when it is freed. By
/// default glibc raises this size dynamically, and freed request bodies then leave holes in the
/// heap that are never returned to the system.
const OWN_PAGES: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "32768");

fn main() -> ExitCode {
    // Both variables are read when a process starts, so it sets them and executes itself.
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
