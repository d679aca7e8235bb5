//! The command line: one file a command.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::settings::Settings;

mod config;
mod events;
mod grants;
mod logs;
mod migrate;
mod pause;
mod progress;
mod submit;
mod verify;
mod worker;

/// Reverts billing usage exactly once: requests from RabbitMQ, entries in PostgreSQL, an event for each.
#[derive(Debug, Parser)]
#[command(name = "revertd", version, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file; without one, the built-in defaults. `REVERTD_<SECTION>__<KEY>` overrides both.
    #[arg(long, global = true, env = "REVERTD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take revert requests off RabbitMQ until told to stop (SIGTERM, SIGINT).
    Worker,
    /// Bring the database's schema up to date.
    Migrate(migrate::Args),
    /// Publish a request, or those of a file, and wait for their events. Exit status: 0 reverted, 1 rejected or failed,
    /// 3 no answer in time.
    Submit(Box<submit::Args>),
    /// Say which clients may ask for reverts of which orgs' usage.
    Grants(grants::Args),
    /// Have every worker of the fleet stop taking requests, without ending: within seconds, until `resume`.
    Pause(pause::PauseArgs),
    /// Have the fleet take requests again.
    Resume(pause::ResumeArgs),
    /// Check every invariant of the ledger and the outcomes, beside running workers, and change nothing. Exit status: 0
    /// nothing is wrong, 1 something is.
    Verify(verify::Args),
    /// Publish events of stored outcomes again.
    Events(events::Args),
    /// Print the effective configuration, without secrets.
    Config(config::Args),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Cli {
    /// Runs the command; its errors are printed, one line each.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("revertd: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<ExitCode> {
        let settings = Settings::load(self.config.as_deref())?;
        if let Command::Config(args) = &self.command {
            return config::run(&settings, args);
        }
        logs::init(settings.telemetry.log_format);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self.command {
            Command::Worker => runtime.block_on(worker::run(settings)),
            Command::Migrate(args) => runtime.block_on(migrate::run(&settings, &args)),
            Command::Submit(args) => runtime.block_on(submit::run(&settings, *args)),
            Command::Grants(args) => runtime.block_on(grants::run(&settings, args)),
            Command::Pause(args) => runtime.block_on(pause::pause(&settings, args)),
            Command::Resume(args) => runtime.block_on(pause::resume(&settings, args)),
            Command::Verify(args) => runtime.block_on(verify::run(&settings, args)),
            Command::Events(args) => runtime.block_on(events::run(&settings, args)),
            Command::Config(args) => config::run(&settings, &args),
        }
    }
}

/// Who does something, for the record: the given name, or whoever is at the keyboard.
fn who(given: Option<String>) -> Option<String> {
    // Whoever the shell is.
    let known = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok());
    given.into_iter().chain(known).find(|name| !name.is_empty())
}

/// Prints to standard output. Whoever closed it has read enough.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
