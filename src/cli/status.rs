//! `revertd status`
//!
//! It reports every source that it cannot read, and continues with the others.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::output::{Output, print, print_pretty};
use super::terminal::{folded, visible, width};
use super::time_span::time_span;
use crate::config::Settings;
use crate::ledger::admin::control::Control;
use crate::ledger::admin::history::Subject;

pub mod known;
mod place;
mod waiting;

use known::Known;

/// Reads outcomes, entries and operators' interventions from the database, and searches the rungs
/// of the retry ladder and the dead-letter queue. Other consumers do not see the messages of a
/// queue while it is searched. The work queue is not searched, because that would count as a
/// delivery of each of its requests.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Id of the usage.
    #[arg(
        value_name = "USAGE_ID",
        value_parser = usage,
        required_unless_present = "request",
        conflicts_with = "request"
    )]
    usage_id: Option<Uuid>,
    /// Id of a request or of a group, instead of a usage.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Only requests of this client; '' for requests without a client.
    #[arg(long, requires = "request", conflicts_with = "usage_id")]
    client: Option<String>,
    /// Do not search the queues.
    #[arg(long)]
    no_queues: bool,
    /// Time limit of the search in the queues.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = time_span)]
    timeout: Duration,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let subject = match (args.usage_id, &args.request) {
        (Some(usage), _) => Subject::Usages(BTreeSet::from([usage])),
        (None, Some(message_id)) => Subject::Request {
            message_id: message_id.clone(),
            client: args.client.clone(),
        },
        (None, None) => anyhow::bail!("give a usage, or a --request"),
    };
    let known = Known::ask(settings, &subject).await;
    let mut waiting = if args.no_queues {
        waiting::Waiting::default()
    } else {
        waiting::look(settings, &subject, args.timeout).await
    };
    let is_seen = known.is_ok();
    let known = known.unwrap_or_else(|error| {
        let unseen = format!("outcomes, entries and interventions: {error}");
        waiting.unseen.push(unseen);
        Known::default()
    });
    let told = match Control::open(settings).await {
        Ok(control) => control.latest().await,
        Err(error) => Err(error),
    };
    let paused = match told {
        Ok(told) => told.filter(|told| told.paused),
        Err(error) => {
            let unseen = format!("whether the fleet is paused: {error}");
            waiting.unseen.push(unseen);
            None
        }
    };
    // One error often affects all queues.
    waiting.unseen.dedup();
    let is_known = known.is_something() || !waiting.letters.is_empty();
    match args.output {
        Output::Json => {
            let mut shown = known.json();
            shown["waiting"] = waiting
                .letters
                .iter()
                .map(waiting::WaitingLetter::json)
                .collect();
            shown["unseen"] = json!(waiting.unseen);
            shown["paused"] = json!(paused.map(|told| told.to_string()));
            print_pretty(&shown)?;
        }
        Output::Text => {
            let mut text = known.text();
            for letter in &waiting.letters {
                text.push_str(&letter.text());
            }
            if !is_known {
                text.push_str(if is_seen {
                    "nothing is known about it\n"
                } else {
                    "nothing was found, and not everything could be read\n"
                });
            }
            if let Some(told) = paused {
                let line = format!(
                    "the fleet is paused {}; revertd resume ends it\n",
                    visible(&told.to_string())
                );
                text.push_str(&line);
            }
            print(&folded(&text, width()))?;
            for unseen in &waiting.unseen {
                say!("revertd: not read: {}", visible(unseen));
            }
        }
    }
    Ok(if is_known {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn usage(text: &str) -> Result<Uuid, String> {
    // A request must spell a UUID with hyphens too.
    let hyphenated = text.len() == 36;
    let parsed = text.parse().ok().filter(|_| hyphenated);
    parsed.ok_or_else(|| {
        "must be a usage's id, a hyphenated UUID; a request's id goes with --request".into()
    })
}
