//! `revertd submit`

use std::fmt::Write;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Map, Value};

use super::terminal::visible;
use super::{Output, print, print_json, time_span};
use crate::broker::{RequestClient, Submission};
use crate::config::Settings;
use crate::domain::event::EventType;

mod dry_run;
mod file;
mod lines;
mod report;
mod sending;
/// Exit status of wrong usage, as clap has it.
const WRONG_USAGE: u8 = 2;

/// Exit status if no event arrived in time. The request is still processed.
const NO_ANSWER: u8 = 3;

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// Usage to revert.
    #[arg(long, value_name = "UUID", required_unless_present_any = ["body", "file"])]
    usage_id: Option<String>,
    /// Amount to revert, in the ledger's smallest unit.
    #[arg(
        long,
        value_name = "INT64",
        required_unless_present_any = ["body", "file"],
        allow_hyphen_values = true
    )]
    amount: Option<String>,
    /// Billing account. One of this, --org-id and --project-id is required.
    #[arg(long, value_name = "UUID")]
    billing_id: Option<String>,
    /// Org. Without the other two, its default account is meant.
    #[arg(long, value_name = "UUID")]
    org_id: Option<String>,
    /// Project. Without the other two, the default account of its org is meant.
    #[arg(long, value_name = "UUID")]
    project_id: Option<String>,
    /// Reason, which is stored with the entry.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Whole request body as JSON instead of the fields; `-` reads standard input.
    #[arg(long, value_name = "JSON", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason"])]
    body: Option<String>,
    /// Message id of the request. The same id again gets the same answer. Default: a new id, which
    /// is printed.
    #[arg(long, value_name = "ID", value_parser = message_id)]
    message_id: Option<String>,
    /// Maximum number of attempts. With 1, an unknown usage is answered at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    #[command(flatten)]
    of_file: file::FileArgs,
    /// Time to wait for the event.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time_span)]
    timeout: Duration,
    /// Format: one line of text, or the event itself.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: SubmitArgs) -> anyhow::Result<ExitCode> {
    // clap ignores `requires` of an argument whose required argument conflicts with a present one.
    if args.of_file.lacks_its_file() {
        say!(
            "revertd: --format, --batch, --skip-invalid, --dry-run, --rate, --window and --failed \
             need --file; nothing was sent; see revertd submit --help"
        );
        return Ok(ExitCode::from(WRONG_USAGE));
    }
    if let Some(path) = args.of_file.file.clone() {
        return file::run(settings, path, &args).await;
    }
    let (timeout, output) = (args.timeout, args.output);
    let submission = submission(args)?;
    let mut client = RequestClient::connect(settings).await?;
    let (sender, answers) = client.split();
    sender.publish(&submission).await?;
    let id = &submission.message_id;
    let event = answers.event(id, timeout).await;
    client.close().await;
    let Some(event) =
        event.map_err(|error| anyhow!("{error}; request {id} was published and is processed"))?
    else {
        let waited = humantime::format_duration(timeout);
        say!(
            "revertd: no event for request {id} within {waited}; the request is still processed: \
             ask again with --message-id {id}"
        );
        return Ok(ExitCode::from(NO_ANSWER));
    };
    let event: Value = serde_json::from_slice(&event).context("the event is not JSON")?;
    match output {
        Output::Json => print_json(&event)?,
        Output::Text => print(&format!("{}\n", summary(&event)))?,
    }
    let reverted = event["type"] == EventType::Reverted.name();
    Ok(if reverted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn submission(args: SubmitArgs) -> anyhow::Result<Submission> {
    let body = match args.body.as_deref() {
        Some("-") => {
            let mut body = Vec::new();
            std::io::stdin()
                .read_to_end(&mut body)
                .context("cannot read the body from standard input")?;
            body
        }
        Some(body) => body.as_bytes().to_vec(),
        None => {
            let fields = [
                ("usage_id", args.usage_id),
                ("amount", args.amount),
                ("billing_id", args.billing_id),
                ("org_id", args.org_id),
                ("project_id", args.project_id),
                ("reason", args.reason),
            ];
            let given = |(name, value): (&str, Option<String>)| {
                Some((name.to_owned(), Value::from(value?)))
            };
            Value::from(fields.into_iter().filter_map(given).collect::<Map<_, _>>())
                .to_string()
                .into_bytes()
        }
    };
    let fresh = || uuid::Uuid::new_v4().to_string();
    let message_id = args.message_id.unwrap_or_else(fresh);
    Ok(Submission {
        correlation_id: message_id.clone(),
        message_id,
        body,
        max_attempts: args.max_attempts,
    })
}

fn message_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 {
        return Err("must have 1 to 255 bytes".into());
    }
    Ok(text.to_owned())
}

/// The event as one line of text.
#[must_use]
pub fn summary(event: &Value) -> String {
    let data = &event["data"];
    // A client chooses ids and metadata, so they may contain control characters.
    let text = |value: &Value| visible(value.as_str().unwrap_or("?")).into_owned();
    let (kind, request) = (text(&event["type"]), text(&data["request_id"]));
    let Some(error) = data.get("error") else {
        return format!(
            "{kind}: {} of {} given back, {} remain (request {request}, transaction {})",
            text(&data["amount"]),
            text(&data["usage_amount"]),
            text(&data["remaining"]),
            text(&data["transaction_id"]),
        );
    };
    let info = &error["details"][0];
    let mut line = format!(
        "{kind}: {}: {}",
        text(&info["reason"]),
        text(&error["message"])
    );
    for (key, value) in info["metadata"].as_object().into_iter().flatten() {
        let _ = write!(line, ", {key} {}", text(value));
    }
    for violation in error["details"][1]["fieldViolations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let (field, description) = (text(&violation["field"]), text(&violation["description"]));
        let _ = write!(line, "; {field} {description}");
    }
    format!("{line} (request {request})")
}
