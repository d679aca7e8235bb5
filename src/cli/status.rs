//! `revertd status`
//!
//! What it can't see it says, and goes on with the rest.

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
mod waiting;

use known::Known;

/// Asks the database for outcomes, entries and what operators did, and looks through the rungs of the retry ladder and the
/// dead-letter queue, whose letters are invisible to others for that moment. The work queue is not looked through: that
/// would count as a delivery of each request in it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The usage.
    #[arg(value_name = "USAGE_ID", value_parser = usage, required_unless_present = "request", conflicts_with = "request")]
    usage_id: Option<Uuid>,
    /// A request instead, by its message id.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Of this client only; '' for nobody in particular.
    #[arg(long, requires = "request", conflicts_with = "usage_id")]
    client: Option<String>,
    /// Don't look into the queues.
    #[arg(long)]
    no_queues: bool,
    /// Look into the queues for so long.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = time_span)]
    timeout: Duration,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let subject = match (args.usage_id, &args.request) {
        (Some(usage), _) => Subject::Usage(usage),
        (None, Some(message_id)) => Subject::Request {
            message_id: message_id.clone(),
            client: args.client.clone(),
        },
        (None, None) => anyhow::bail!("say which usage, or which --request"),
    };
    let known = Known::ask(settings, &subject).await;
    let mut waiting = if args.no_queues {
        waiting::Waiting::default()
    } else {
        waiting::look(settings, &subject, args.timeout).await
    };
    let is_seen = known.is_ok();
    let known = known.unwrap_or_else(|error| {
        let unseen = format!("outcomes, entries and what was done to letters: {error}");
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
    // What keeps one queue from being seen often keeps all.
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
                    "nothing is known of it\n"
                } else {
                    "nothing was found, and not everything could be seen\n"
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
                say!("revertd: not seen: {}", visible(unseen));
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
    // As in a request: no other spelling of a UUID.
    let hyphenated = text.len() == 36;
    let parsed = text.parse().ok().filter(|_| hyphenated);
    parsed.ok_or_else(|| {
        "must be a usage's id, a hyphenated UUID; a request's id goes with --request".into()
    })
}
