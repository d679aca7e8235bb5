//! `revertd dead-letters`
//!
//! What it reads stays in the queue, but for what `replay` has published again, confirmed, and what `discard` was told to
//! throw away. Both are noted in the database before they act.

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

/// While letters are read, nobody else sees them; they return to their places when the command ends. Reading uses
/// nothing up, however often.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// Count the letters by reason and client, then list them, the first first. With `--output json` a letter a line.
    ///
    /// Letters that are being listed are invisible to others for that moment.
    List(list::ListLettersArgs),
    /// Show one letter whole: properties, body, what went wrong, and what the ledger says of its usage now.
    Show(show::ShowLetterArgs),
    /// Publish letters as requests again, and take those off the queue that the broker has confirmed.
    ///
    /// They keep their identity (client, message id, content), so that one that was decided meanwhile, or is replayed
    /// twice, is answered with the same event and changes nothing. Run it under the worker's own login (amqp.url): only
    /// that one may say whose request a message is. What arrives meanwhile is not taken. It can be stopped or killed at any
    /// time, and run again.
    Replay(Replay),
    /// Throw letters away, after noting who did it and why.
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
