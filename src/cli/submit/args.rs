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
    /// The amount to revert, in the ledger's smallest unit.
    #[arg(
        long,
        value_name = "INT64",
        required_unless_present_any = ["body", "file"],
        allow_hyphen_values = true
    )]
    pub amount: Option<String>,
    /// The billing account. One of --billing-id, --org-id and --project-id is required.
    #[arg(long, value_name = "UUID")]
    pub billing_id: Option<String>,
    /// The org. Without --billing-id: its default account.
    #[arg(long, value_name = "UUID")]
    pub org_id: Option<String>,
    /// The project. Without --billing-id: the default account of its org.
    #[arg(long, value_name = "UUID")]
    pub project_id: Option<String>,
    /// The reason, which is stored with the entry.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The whole body as JSON, instead of the fields; `-` reads standard input.
    #[arg(long, value_name = "JSON", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason"])]
    pub body: Option<String>,
    /// The request's id. A request that is sent again under the same id gets the same answer.
    /// Default: a new id, which is printed.
    #[arg(long, value_name = "ID", value_parser = message_id)]
    pub message_id: Option<String>,
    /// Maximum number of attempts. With 1, a request for an unknown usage is refused at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: Option<u32>,
    #[command(flatten)]
    pub of_file: FileArgs,
    /// How long to wait for the event.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time_span)]
    pub timeout: Duration,
    /// The output: one line for people, or the event as JSON.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// File of requests: one JSON object per line, or CSV with a header. The fields are the six
    /// fields of a request, and optionally `message_id`.
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason", "body",
            "message_id"])]
    pub file: Option<PathBuf>,
    /// The format of the file. Default: csv if its name ends in .csv, otherwise ndjson.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Prefix of the ids of lines without a `message_id`. If a file is sent again with the same
    /// prefix, its requests have the same ids, and nothing is reverted twice. With another prefix,
    /// they are new requests.
    #[arg(long, value_name = "NAME", value_parser = batch)]
    pub batch: Option<String>,
    /// Skip invalid lines. Without it, a file with an invalid line is not sent.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Show the outcome that each request would have now, by the database, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Maximum number of requests in a message; 1 sends each by itself. A group has at most
    /// `amqp.max_group` requests and `amqp.max_group_bytes`. Default: 100, but not more than
    /// `--window` and a tenth of `--rate`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub group_size: Option<u32>,
    /// Revert each group as a whole or not at all: one refused request refuses the others of its
    /// group.
    #[arg(long)]
    pub atomic: bool,
    /// Maximum number of requests per second. A group is sent at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Maximum number of requests in flight. Default: 500, or 20 groups if these are more.
    #[arg(long, value_name = "N", value_parser =
        clap::value_parser!(u32).range(1..=10_000))]
    pub window: Option<u32>,
    /// Write the requests that were not reverted to this file, each with its reason. The file can
    /// be sent again. It is replaced at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub failed: Option<PathBuf>,
}

impl FileArgs {
    /// Whether an argument is given that requires --file.
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
