//! `revertd dead-letters`
//!
//! Every message that it reads stays in the queue, except the messages that `replay` has published
//! and the broker has confirmed, and the messages that `discard` removes. Both commands record the
//! messages in the database before they act.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::Settings;

mod action;
mod args;
mod counts;
mod filter;
mod intervene;
mod list;
mod listing;
mod reading;
mod save;
mod selection;
mod show;
mod summary;
use args::{Discard, Replay};

/// While this command reads the dead-letter queue, other consumers do not see the messages. They
/// return to their positions when the command ends. Reading does not count against a delivery
/// limit.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// Count the dead letters by reason and client, then list them, the oldest first. With
    /// `--output json`, print one dead letter per line.
    ///
    /// Other consumers do not see the dead letters while they are listed.
    List(list::ListLettersArgs),
    /// Show one dead letter in full: properties, body, error, and the current state of its usage in
    /// the ledger.
    Show(show::ShowLetterArgs),
    /// Publish dead letters as requests again, and remove those that the broker has confirmed.
    ///
    /// Each request keeps its identity (client, message id, content): a request that was decided
    /// meanwhile, or is replayed twice, is answered with the same event and changes nothing. Run
    /// the command with the worker's own login (amqp.url), because only that login may name the
    /// client of a request. Dead letters that arrive during the run are not taken. The command can
    /// be stopped or killed at any time, and run again.
    Replay(Replay),
    /// Remove dead letters, after recording the operator and the reason.
    Discard(Discard),
}

pub async fn run(settings: &Settings, args: DeadLettersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        DeadLettersCommand::List(args) => list::run(settings, args).await,
        DeadLettersCommand::Show(args) => show::run(settings, &args).await,
        DeadLettersCommand::Replay(args) => intervene::replay(settings, args).await,
        DeadLettersCommand::Discard(args) => intervene::discard(settings, args).await,
    }
}
