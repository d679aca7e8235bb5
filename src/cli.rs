//! The command line: one file per command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::broker::STACK_BYTES;
use crate::config::Settings;
use crate::{broker, ledger};

/// Prints a message to standard error. A closed standard error does not stop the command.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = format!($($text)*);
        let _ = writeln!(std::io::stderr(), "{}", crate::common::printable::lines(&text));
    }};
}

mod completions;
mod config;
mod dead_letters;
mod doctor;
mod events;
mod gateway;
mod grants;
mod health;
mod logs;
mod man;
mod migrate;
mod operator;
mod output;
mod pause;
mod progress;
pub(super) mod prompt;
mod signals;
mod status;
mod submit;
mod terminal;
mod time_span;
mod usages;
mod verify;
mod worker;

/// How to encrypt what goes in the clear.
const DATABASE_REMEDY: &str = "use sslmode=verify-full in database.url";
const AMQP_REMEDY: &str = "use amqps:// in amqp.url";

/// Reverts billing usage exactly once: requests from RabbitMQ, entries in PostgreSQL, one event per
/// request.
#[derive(Debug, Parser)]
#[command(name = "revertd", version, arg_required_else_help = true)]
pub struct Cli {
    /// Configuration file. Without one, the built-in defaults apply. `REVERTD_<SECTION>__<KEY>`
    /// overrides both.
    #[arg(long, global = true, env = "REVERTD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume revert requests from RabbitMQ until SIGTERM or SIGINT.
    Worker,
    /// Accept requests over HTTP, publish each as its client, and answer with its event.
    Gateway,
    /// Bring the database's schema up to date.
    Migrate(migrate::MigrateArgs),
    /// Publish one request, or the requests of a file, and wait for their events. Exit status: 0
    /// reverted, 1 rejected or failed, 3 no answer in time.
    Submit(Box<submit::SubmitArgs>),
    /// Write requests that revert the usages of an org or account, as a file for `submit --file`.
    /// It only reads.
    Usages(usages::UsagesArgs),
    /// Set which clients may revert the usage of which orgs.
    Grants(grants::GrantsArgs),
    /// List, show, replay or discard the messages of the dead-letter queue.
    DeadLetters(Box<dead_letters::DeadLettersArgs>),
    /// Show the outcomes, entries and events of a request or a usage, and the queue it waits in.
    /// Exit status: 0 something is known, 1 nothing is known.
    Status(status::StatusArgs),
    /// Stop every worker of the fleet from taking requests, within seconds and until `resume`. The
    /// worker processes keep running.
    Pause(pause::PauseArgs),
    /// Let the workers of the fleet take requests again.
    Resume(pause::ResumeArgs),
    /// Check every invariant of the ledger and the outcomes. It changes nothing, and workers may
    /// run meanwhile. Exit status: 0 no violation, 1 a violation.
    Verify(verify::VerifyArgs),
    /// Publish the events of stored outcomes again.
    Events(events::EventsArgs),
    /// Check configuration, connections, permissions, topology and schema, and print a remedy for
    /// each problem. Exit status: 0 no error, 1 an error.
    Doctor(doctor::DoctorArgs),
    /// Check whether the worker or gateway of this machine (`telemetry.listen`) is ready. Exit
    /// status: 0 ready, 1 not ready.
    Health(health::HealthArgs),
    /// Print the effective configuration, without secrets.
    Config(config::ConfigArgs),
    /// Print the completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages of all commands into a folder.
    Man(man::ManArgs),
}

impl Cli {
    /// Runs the command and prints its error, if any, to standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            Err(error) => {
                if !logs::fatal(&error) {
                    say!("revertd: {error:#}");
                }
                ExitCode::FAILURE
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<ExitCode> {
        // Packaging runs these two commands without a valid configuration.
        if let Command::Completions(args) = &self.command {
            return completions::run(args, Self::command());
        }
        if let Command::Man(args) = &self.command {
            return man::run(args, Self::command());
        }
        let settings = match (Settings::load(self.config.as_deref()), &self.command) {
            (Ok(settings), _) => settings,
            (Err(error), Command::Doctor(args)) => return doctor::misconfigured(&error, args),
            (Err(error), _) => return Err(error.into()),
        };
        if let Command::Config(args) = &self.command {
            return config::run(&settings, args);
        }
        let is_service = matches!(self.command, Command::Worker | Command::Gateway);
        logs::init(settings.telemetry.log_format, is_service);
        if matches!(self.command, Command::Worker | Command::Migrate(_)) {
            logs::warn_of_clear_text(
                "PostgreSQL",
                &ledger::unencrypted(&settings),
                DATABASE_REMEDY,
            );
        }
        if is_service {
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
            Command::Usages(args) => runtime.block_on(usages::run(&settings, args)),
            Command::Grants(args) => runtime.block_on(grants::run(&settings, args)),
            Command::DeadLetters(args) => {
                on_large_stack(|| runtime.block_on(dead_letters::run(&settings, *args)))
            }
            Command::Status(args) => {
                on_large_stack(|| runtime.block_on(status::run(&settings, &args)))
            }
            Command::Pause(args) => runtime.block_on(pause::pause(&settings, args)),
            Command::Resume(args) => runtime.block_on(pause::resume(&settings, args)),
            Command::Verify(args) => runtime.block_on(verify::run(&settings, args)),
            Command::Events(args) => runtime.block_on(events::run(&settings, args)),
            Command::Doctor(args) => runtime.block_on(doctor::run(&settings, &args)),
            Command::Health(args) => runtime.block_on(health::run(&settings, &args)),
            Command::Config(args) => config::run(&settings, &args),
            Command::Completions(args) => completions::run(&args, Self::command()),
            Command::Man(args) => man::run(&args, Self::command()),
        }
    }
}

/// Runs work that reads message headers. Headers nest as deeply as a frame allows and are parsed by
/// recursion, so the work needs a large stack.
fn on_large_stack<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = builder.spawn_scoped(scope, work)?;
        running
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
