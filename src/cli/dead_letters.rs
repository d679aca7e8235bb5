//! `revertd dead-letters`
//!
//! Every message that it reads stays in the queue, except the messages that `replay` has published
//! and the broker has confirmed, and the messages that `discard` removes. Both commands record the
//! messages in the database before they act.

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

/// Exit status of wrong usage.
const WRONG_USAGE: u8 = 2;

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

/// The dead letters that an operator chooses, and the operator's name.
#[derive(Debug, Args)]
struct Chosen {
    /// Dead letters by id: the request's message id, or at least 6 digits of the id that `list`
    /// prints.
    #[arg(value_name = "ID", value_parser = filter::id)]
    ids: Vec<String>,
    /// Every dead letter.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: LetterFilter,
    /// Print what the command would do, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// Name of the operator, for the record. Default: the user of this shell.
    #[arg(long, value_name = "NAME", value_parser = operator::name)]
    by: Option<String>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// Maximum rate, in dead letters per second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Also replay dead letters that are no valid requests (reason `MALFORMED_REQUEST`). They are
    /// dead-lettered again, unless a newer version can parse them.
    #[arg(long)]
    include_malformed: bool,
    /// Reason of the replay, for the record.
    #[arg(long, value_name = "TEXT", value_parser = filter::why)]
    why: Option<String>,
}

#[derive(Debug, Args)]
struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Reason of the removal, for the record.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "dry_run",
        value_parser = filter::why
    )]
    why: Option<String>,
    /// Save the dead letters in full to this file first, one JSON object per line. The file must
    /// not exist.
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

/// Reports how many dead letters were counted and not read. `false` if there are any: the result is
/// incomplete, and the command fails.
fn all_read(browse: &QueueReader) -> bool {
    let (missing, waiting) = (browse.missing(), browse.waiting());
    if missing > 0 {
        say!(
            "revertd: {missing} of the {waiting} letters that were counted could not be read: \
             other consumers hold them or took them, or they expired meanwhile"
        );
    }
    missing == 0
}

/// The exit status of the command.
fn exit_code(is_all_read: bool) -> ExitCode {
    if is_all_read {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Opens the queue, and reports other consumers once: the messages that they hold are not visible.
async fn open(settings: &Settings, body_bytes: u64) -> anyhow::Result<QueueReader> {
    let queue = settings.topology.dead_letter_queue.as_str();
    let browse = QueueReader::open(settings, queue, body_bytes).await?;
    if browse.others() > 0 {
        say!(
            "revertd: {} other reader(s) of {queue} at this moment; \
             the letters that they hold are not visible here",
            browse.others()
        );
    }
    Ok(browse)
}
