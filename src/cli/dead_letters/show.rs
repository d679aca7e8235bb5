//! `revertd dead-letters show`

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::filter;
use super::listing::object;
use super::reading::{all_read, exit_code, open};
use super::selection::Candidates;
use crate::broker::QueuedMessage;
use crate::cli::output::{Output, print, print_pretty};
use crate::cli::status::known::Known;
use crate::cli::terminal::{ago, folded, named, time, visible, width};
use crate::config::Settings;
use crate::domain::request::BodySummary;
use crate::ledger::admin::history::Subject;

#[derive(Debug, Args)]
pub struct ShowLetterArgs {
    /// The message id, the id of a request of a group, or at least 6 digits of the id that `list`
    /// prints.
    #[arg(value_name = "ID", value_parser = filter::id)]
    id: String,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: &ShowLetterArgs) -> anyhow::Result<ExitCode> {
    let (mut first, mut copies, mut candidates) = (None, 0, Candidates::default());
    let mut browse = open(settings, u64::MAX).await?;
    while let Some(letter) = browse.next().await? {
        if filter::names(&args.id, &letter, &letter.summary()) {
            candidates.add(&letter);
            copies += 1;
            first.get_or_insert(letter);
        }
    }
    let is_all = all_read(&browse);
    browse.close().await?;
    candidates.only(&args.id)?;
    let letter: QueuedMessage = first.expect("the only candidate was kept");
    let summary = letter.summary();
    let subject = subject(&letter, &summary);
    let known = match &subject {
        Some(subject) => Some(Known::ask(settings, subject).await),
        None => None,
    };
    match args.output {
        Output::Json => {
            let mut shown = object(&letter, &summary);
            shown["copies"] = copies.into();
            shown["properties"] = letter.shown_properties().into();
            match std::str::from_utf8(&letter.body) {
                Ok(text) => shown["body"] = text.into(),
                Err(_) => shown["body_base64"] = STANDARD.encode(&letter.body).into(),
            }
            match &known {
                Some(Ok(known)) => shown["known"] = known.json(),
                Some(Err(error)) => shown["known_error"] = error.to_string().into(),
                None => {}
            }
            print_pretty(&shown)?;
        }
        Output::Text => {
            let mut shown = text(&letter, &summary, copies);
            match &known {
                Some(Ok(known)) => {
                    let _ = write!(shown, "\nin the database now:\n{}", known.text());
                }
                Some(Err(error)) => {
                    let _ = writeln!(shown, "\nthe database could not be read: {error}");
                }
                None => shown
                    .push_str("\nit names no usage and no request to look up in the database\n"),
            }
            print(&folded(&shown, width()))?;
        }
    }
    Ok(exit_code(is_all))
}

/// The usages of the letter, or its message id if it names none.
fn subject(letter: &QueuedMessage, summary: &BodySummary) -> Option<Subject> {
    let usages: BTreeSet<_> = summary
        .fragments()
        .filter_map(|request| request.usage_id)
        .collect();
    if !usages.is_empty() {
        return Some(Subject::Usages(usages));
    }
    let message_id = letter.message_id.clone()?;
    let client = Some(letter.client.clone());
    Some(Subject::Request { message_id, client })
}

fn text(letter: &QueuedMessage, summary: &BodySummary, copies: u32) -> String {
    let mut text = format!("letter   {}\n", letter.id.simple());
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<8} {value}");
    };
    line("reason", &named(&letter.reason));
    if let Some(noted) = &letter.noted {
        let code = noted
            .code
            .map_or(String::new(), |code| format!(" (code {code})"));
        line("error", &format!("{}{code}", visible(&noted.message)));
    }
    line("client", &named(&letter.client));
    if let Some(login) = &letter.claimed_by {
        line(
            "login",
            &format!(
                "{}, which is the only source of the client's name",
                named(login)
            ),
        );
    }
    line(
        "request",
        &named(letter.message_id.as_deref().unwrap_or_default()),
    );
    if let Some(size) = summary.group_size() {
        line("requests", &format!("{size}, a group"));
    }
    line("attempts", &letter.attempts.to_string());
    if let Some(since) = letter.since {
        let ago = ago(Some(since), Timestamp::now());
        line("since", &format!("{} ({ago} ago)", time(since)));
    }
    if copies > 1 {
        line("copies", &copies.to_string());
    }
    match letter.shown_properties() {
        Some(properties) => {
            for (name, value) in properties {
                if let Value::Object(headers) = &value {
                    for (header, value) in headers {
                        let shown = visible(&value.to_string()).into_owned();
                        let _ = writeln!(text, "  header {}: {shown}", visible(header));
                    }
                } else {
                    let _ = writeln!(text, "  {name}: {}", visible(&value.to_string()));
                }
            }
        }
        None => text.push_str(
            "  its properties cannot be read: not UTF-8, truncated, or of an unknown type\n",
        ),
    }
    let _ = match letter.cut_from {
        Some(whole) => writeln!(
            text,
            "body, the first {} of {whole} bytes:",
            letter.body_bytes
        ),
        None => writeln!(text, "body, {} bytes:", letter.body_bytes),
    };
    match std::str::from_utf8(&letter.body) {
        Ok(body) => body.lines().for_each(|line| {
            let _ = writeln!(text, "  {}", visible(line));
        }),
        Err(_) => {
            let _ = writeln!(
                text,
                "  not UTF-8; in base64: {}",
                STANDARD.encode(&letter.body)
            );
        }
    }
    text
}
