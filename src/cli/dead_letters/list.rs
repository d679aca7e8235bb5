//! `revertd dead-letters list`
//!
//! Its memory does not grow with the queue: it reads the queue a second time for a long list.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::counts::{LetterCounts, letters};
use super::filter::{self, LetterFilter};
use super::listing::{Columns, Listed, object};
use super::reading::{all_read, exit_code, open};
use crate::broker::QueuedMessage;
use crate::cli::output::{Output, print, print_json, printed, printed_json};
use crate::cli::terminal::{folded, width};
use crate::config::Settings;
use crate::domain::request::BodySummary;

/// Dead letters that are listed by default. This many are kept in memory.
const USUAL: u64 = 100;

#[derive(Debug, Args)]
pub struct ListLettersArgs {
    #[command(flatten)]
    filter: LetterFilter,
    /// Dead letters by id: the message id, the id of a request of a group, or at least 6 digits of
    /// the id that is listed.
    #[arg(long = "id", value_name = "ID", value_parser = filter::id)]
    ids: Vec<String>,
    /// List at most this many. Default: 100, or all with `--output json`.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<u64>,
    /// List all. This reads the queue twice.
    #[arg(long)]
    all: bool,
    /// Print only the counts.
    #[arg(long, conflicts_with_all = ["limit", "all"])]
    counts: bool,
    /// Format of the list. Text prints the counts and then the list. JSON prints one object per
    /// line: a dead letter, or a group with `--counts`.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl ListLettersArgs {
    fn fits(&self, letter: &QueuedMessage, summary: &BodySummary, now: Timestamp) -> bool {
        let named = |id: &String| filter::names(id, letter, summary);
        let is_named = self.ids.is_empty() || self.ids.iter().any(named);
        is_named && self.filter.fits(letter, summary, now)
    }

    /// How many dead letters are listed at most.
    fn most(&self) -> u64 {
        match (self.counts, self.limit, self.all, self.output) {
            (true, ..) => 0,
            (_, Some(limit), ..) => limit,
            (_, None, false, Output::Text) => USUAL,
            (_, None, ..) => u64::MAX,
        }
    }
}

pub async fn run(settings: &Settings, args: ListLettersArgs) -> anyhow::Result<ExitCode> {
    let is_all = match args.output {
        Output::Json => json(settings, &args).await?,
        Output::Text => text(settings, &args).await?,
    };
    Ok(exit_code(is_all))
}

/// Returns whether every counted dead letter was read.
async fn json(settings: &Settings, args: &ListLettersArgs) -> anyhow::Result<bool> {
    let (now, most) = (Timestamp::now(), args.most());
    let (mut counts, mut listed) = (LetterCounts::default(), 0);
    let mut browse = open(settings, 0).await?;
    while let Some(letter) = browse.next().await? {
        let summary = letter.summary();
        if !args.fits(&letter, &summary, now) {
            continue;
        }
        if args.counts {
            counts.add(&letter.reason, &letter.client);
        } else if listed >= most || !printed_json(&object(&letter, &summary))? {
            break;
        }
        listed += 1;
    }
    let is_all = all_read(&browse);
    browse.close().await?;
    for group in counts.json() {
        print_json(&group)?;
    }
    Ok(is_all)
}

async fn text(settings: &Settings, args: &ListLettersArgs) -> anyhow::Result<bool> {
    let (now, most, width) = (Timestamp::now(), args.most(), width());
    let mut counts = LetterCounts::default();
    let mut kept = Vec::new();
    let mut browse = open(settings, 0).await?;
    let waiting = browse.waiting();
    while let Some(letter) = browse.next().await? {
        let summary = letter.summary();
        if !args.fits(&letter, &summary, now) {
            continue;
        }
        counts.add(&letter.reason, &letter.client);
        if (kept.len() as u64) < most.min(USUAL) {
            kept.push(Listed::new(&letter, &summary));
        }
    }
    let is_all = all_read(&browse);
    browse.close().await?;
    let mut text = counts.text();
    if is_all || counts.total() > 0 {
        text.push_str(&letters(counts.total()));
        text.push('\n');
    }
    let columns = Columns::of(counts.groups());
    if !kept.is_empty() {
        text.push('\n');
        text.push_str(&Listed::heading(columns, width));
    }
    for letter in &kept {
        text.push_str(&letter.text(columns, width, now));
    }
    if !printed(&folded(&text, width))? {
        return Ok(is_all);
    }
    let mut listed = kept.len() as u64;
    if listed < most.min(counts.total()) {
        // Continues with the first dead letter that is not in `kept`.
        let (mut browse, mut fitting) = (open(settings, 0).await?, 0);
        browse.limit(waiting);
        while let Some(letter) = browse.next().await? {
            let summary = letter.summary();
            if !args.fits(&letter, &summary, now) {
                continue;
            }
            fitting += 1;
            if fitting <= listed {
                continue;
            }
            let text = Listed::new(&letter, &summary).text(columns, width, now);
            if listed >= most || !printed(&folded(&text, width))? {
                break;
            }
            listed += 1;
        }
        browse.close().await?;
    }
    if most > 0 && counts.total() > listed {
        let more = counts.total() - listed;
        print(&folded(
            &format!("and {more} more: --limit N, or --all\n"),
            width,
        ))?;
    }
    Ok(is_all)
}
