//! The arguments of `revertd submit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::lines::Format;
use crate::cli::output::Output;
use crate::cli::time_span::time_span;

/// As the parser of arguments ends.
pub const WRONG_USAGE: u8 = 2;

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The usage to revert.
    #[arg(long, value_name = "UUID", required_unless_present_any = ["body", "file"])]
    pub usage_id: Option<String>,
    /// How much of it, in the ledger's smallest unit.
    #[arg(
        long,
        value_name = "INT64",
        required_unless_present_any = ["body", "file"],
        allow_hyphen_values = true
    )]
    pub amount: Option<String>,
    /// The billing account. One of this, --org-id and --project-id is required.
    #[arg(long, value_name = "UUID")]
    pub billing_id: Option<String>,
    /// The org; alone, stands for its default account.
    #[arg(long, value_name = "UUID")]
    pub org_id: Option<String>,
    /// The project; alone, stands for its org's default account.
    #[arg(long, value_name = "UUID")]
    pub project_id: Option<String>,
    /// Why; kept with the entry.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The whole body instead, as JSON; `-` reads standard input.
    #[arg(long, value_name = "JSON", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason"])]
    pub body: Option<String>,
    /// The request's id: the same id again answers the same. Without one, a fresh one is made and
    /// printed.
    #[arg(long, value_name = "ID", value_parser = message_id)]
    pub message_id: Option<String>,
    /// Attempts at most: 1 answers an unknown usage at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: Option<u32>,
    #[command(flatten)]
    pub of_file: FileArgs,
    /// How long to wait for the event.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time_span)]
    pub timeout: Duration,
    /// One line for people, or the event itself.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Requests from a file instead: a JSON object a line, or CSV with a header; the six fields,
    /// and `message_id`, optional.
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason", "body",
            "message_id"])]
    pub file: Option<PathBuf>,
    /// How the file is written. Without: by its ending, .csv or any other.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// What the ids of lines without a `message_id` begin with. The same file and batch again ask
    /// the same requests again, which changes nothing; another batch asks new ones.
    #[arg(long, value_name = "NAME", value_parser = batch)]
    pub batch: Option<String>,
    /// Go on without the lines that are no requests, instead of sending nothing.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Say what each request would come to at this moment, by the database, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Requests in a message, at most; 1 sends each by itself. A group has at most
    /// `amqp.max_group` requests and `amqp.max_group_bytes`. Without: 100, but not more than
    /// --window and a tenth of --rate.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub group_size: Option<u32>,
    /// Revert each group as a whole or not at all: one refused request refuses the others of its
    /// group.
    #[arg(long)]
    pub atomic: bool,
    /// Requests a second, at most; a group is sent at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Requests that wait for their answers at a time. Without: 500, or 20 groups if these are
    /// more.
    #[arg(long, value_name = "N", value_parser =
        clap::value_parser!(u32).range(1..=10_000))]
    pub window: Option<u32>,
    /// Write what was not reverted into this file, with its reason, as requests that can be sent
    /// again. It takes that place at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub failed: Option<PathBuf>,
}

impl FileArgs {
    /// Whether something is given that means nothing without a file.
    pub fn lacks_its_file(&self) -> bool {
        let given = self.format.is_some()
            || self.batch.is_some()
            || self.skip_invalid
            || self.dry_run
            || self.group_size.is_some()
            || self.atomic
            || self.rate.is_some()
            || self.window.is_some()
            || self.failed.is_some();
        given && self.file.is_none()
    }
}

fn message_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 {
        return Err("must have 1 to 255 bytes".into());
    }
    Ok(text.to_owned())
}

fn batch(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err("must be a name of 1 to 200 bytes without control characters".into());
    }
    Ok(text.to_owned())
}
