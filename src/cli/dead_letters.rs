//! `revertd dead-letters`
//!
//! What it reads stays in the queue, but for what `replay` has published again, confirmed, and what `discard` was told to
//! throw away. Both are noted in the database before they act.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Output, operator};
use crate::broker::QueueReader;
use crate::config::Settings;

mod action;
mod counts;
mod filter;
mod intervene;
mod list;
mod listing;
mod save;
mod selection;
mod show;
mod summary;
use filter::LetterFilter;

/// Wrong usage.
const WRONG_USAGE: u8 = 2;

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

/// Which letters, and who is to answer for it.
#[derive(Debug, Args)]
struct Chosen {
    /// Letters by their id: the request's message id, or at least 6 digits of the id that `list` prints.
    #[arg(value_name = "ID", value_parser = filter::id)]
    ids: Vec<String>,
    /// Every letter.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: LetterFilter,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long, short)]
    yes: bool,
    /// Who does it, for the record. Without: the user of this shell.
    #[arg(long, value_name = "NAME", value_parser = operator::name)]
    by: Option<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// At most so many letters a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Also those that were no requests (reason `MALFORMED_REQUEST`): they only come back, unless the program has learned to
    /// read them.
    #[arg(long)]
    include_malformed: bool,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", value_parser = filter::why)]
    why: Option<String>,
}

#[derive(Debug, Args)]
struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run", value_parser = filter::why)]
    why: Option<String>,
    /// Save the letters there first, whole, an object a line; the file must not exist.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub async fn run(settings: &Settings, args: DeadLettersArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        DeadLettersCommand::List(args) => list::run(settings, args).await,
        DeadLettersCommand::Show(args) => show::run(settings, &args).await,
        DeadLettersCommand::Replay(args) => intervene::replay(settings, args).await,
        DeadLettersCommand::Discard(args) => intervene::discard(settings, args).await,
    }
}

/// Says how many letters were counted and not read. Where there are such, what was read is not all, and the command fails.
fn all_read(browse: &QueueReader) -> bool {
    let (missing, waiting) = (browse.missing(), browse.waiting());
    if missing > 0 {
        say!(
            "revertd: {missing} of the {waiting} letters that were counted could not be read: others hold them or took \
             them, or they expired meanwhile"
        );
    }
    missing == 0
}

/// What the shell is told of it.
fn exit_code(is_all_read: bool) -> ExitCode {
    if is_all_read {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Opens the queue. What others hold is not seen, which is said once.
async fn open(settings: &Settings, body_bytes: u64) -> anyhow::Result<QueueReader> {
    let queue = settings.topology.dead_letter_queue.as_str();
    let browse = QueueReader::open(settings, queue, body_bytes).await?;
    if browse.others() > 0 {
        say!(
            "revertd: {} other reader(s) of {queue} at this moment; the letters in their hands are not seen here",
            browse.others()
        );
    }
    Ok(browse)
}
