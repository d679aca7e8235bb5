//! The command line: one file a command.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::settings::Settings;
use crate::{broker, ledger};

mod config;
mod doctor;
mod gateway;
mod grants;
mod logs;
mod migrate;
mod signals;
mod submit;
mod worker;

/// How to encrypt what goes in the clear.
const DATABASE_REMEDY: &str = "use sslmode=verify-full in database.url";
const AMQP_REMEDY: &str = "use amqps:// in amqp.url";

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
    /// Serve the operation over HTTP: requests in, published as their client, answered by their event.
    Gateway,
    /// Bring the database's schema up to date.
    Migrate(migrate::Args),
    /// Publish one request and wait for its event. Exit status: 0 reverted, 1 rejected or failed, 3 no answer
    /// in time.
    Submit(Box<submit::Args>),
    /// Say which clients may ask for reverts of which orgs' usage.
    Grants(grants::Args),
    /// Check configuration, connections, permissions, topology and schema, and say what to do. Exit status 1 with
    /// errors.
    Doctor(doctor::Args),
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
        let settings = match (Settings::load(self.config.as_deref()), &self.command) {
            (Ok(settings), _) => settings,
            (Err(wrong), Command::Doctor(args)) => return doctor::misconfigured(&wrong, args),
            (Err(wrong), _) => return Err(wrong.into()),
        };
        if let Command::Config(args) = &self.command {
            return config::run(&settings, args);
        }
        logs::init(settings.telemetry.log_format);
        if matches!(self.command, Command::Worker | Command::Migrate(_)) {
            logs::warn_of_clear_text(
                "PostgreSQL",
                &ledger::unencrypted(&settings),
                DATABASE_REMEDY,
            );
        }
        if matches!(self.command, Command::Worker) {
            logs::warn_of_clear_text("RabbitMQ", &broker::unencrypted(&settings), AMQP_REMEDY);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self.command {
            Command::Worker => runtime.block_on(worker::run(settings)),
            Command::Gateway => runtime.block_on(gateway::run(settings)),
            Command::Migrate(args) => runtime.block_on(migrate::run(&settings, &args)),
            Command::Submit(args) => runtime.block_on(submit::run(&settings, *args)),
            Command::Grants(args) => runtime.block_on(grants::run(&settings, args)),
            Command::Doctor(args) => runtime.block_on(doctor::run(&settings, &args)),
            Command::Config(args) => config::run(&settings, &args),
        }
    }
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
