//! What came of the requests of a file: counted by outcome; those that were not reverted, in a file of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use super::lines::Line;
use super::{NO_ANSWER, summary};
use crate::cli::{Output, print};
use crate::event::Kind;

/// What is counted beside the reasons of events.
pub const UNANSWERED: &str = "NO_ANSWER_IN_TIME";
pub const UNSENT: &str = "NOT_SENT";
pub const INVALID: &str = "INVALID_LINE";

/// Counts, and tells line by line.
pub struct Report {
    output: Output,
    counts: BTreeMap<String, u64>,
    failed: Option<File>,
}

impl Report {
    /// Begins; `failed` is written anew.
    pub fn new(output: Output, failed: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            let created =
                File::create(path).with_context(|| format!("cannot write {}", path.display()));
            created.map_err(|error| anyhow!("{error:#}"))
        };
        Ok(Self {
            output,
            counts: BTreeMap::new(),
            failed: failed.map(create).transpose()?,
        })
    }

    /// Lines that were passed over.
    pub fn skipped(&mut self, lines: u64) {
        if lines > 0 {
            self.counts.insert(INVALID.into(), lines);
        }
    }

    /// The event that answers a line.
    pub fn answered(&mut self, line: &Line, event: &[u8]) -> anyhow::Result<()> {
        let event: Value = serde_json::from_slice(event).context("the event is not JSON")?;
        let reverted = event["type"] == Kind::Reverted.name();
        let reason = &event["data"]["error"]["details"][0]["reason"];
        let verdict = if reverted { &event["type"] } else { reason };
        let verdict = verdict.as_str().unwrap_or("?").to_owned();
        match self.output {
            Output::Json => print(&format!(
                "{}\n",
                json!({"line": line.number, "event": event})
            ))?,
            Output::Text if reverted => {}
            Output::Text => print(&format!("line {}: {}\n", line.number, summary(&event)))?,
        }
        if !reverted {
            let message = event["data"]["error"]["message"].as_str().unwrap_or("?");
            let is_final = event["type"] == Kind::Rejected.name();
            self.keep(line, &verdict, message, is_final)?;
        }
        *self.counts.entry(verdict).or_default() += 1;
        Ok(())
    }

    /// A line without an answer, or that was never sent.
    pub fn left(&mut self, line: &Line, why: &str) -> anyhow::Result<()> {
        if self.output == Output::Json {
            print(&format!("{}\n", json!({"line": line.number, "left": why})))?;
        }
        self.keep(line, why, "ask again: nothing is reverted twice", false)?;
        *self.counts.entry(why.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Writes a line into the file of those that were not reverted, as a request that can be sent again. One that is not
    /// decided for good keeps the id that it was sent under: it may be reverted yet, and another id would be another
    /// revert. One that was rejected has the id that it stood under, or, without one, what the next batch makes. The reader
    /// passes over what else it says.
    fn keep(
        &mut self,
        line: &Line,
        reason: &str,
        message: &str,
        is_final: bool,
    ) -> anyhow::Result<()> {
        let Some(file) = &mut self.failed else {
            return Ok(());
        };
        let mut kept = line.body();
        if line.has_own_id || !is_final {
            kept["message_id"] = json!(line.message_id);
        }
        kept["failed"] = json!({
            "line": line.number, "request_id": line.message_id, "reason": reason, "message": message,
        });
        writeln!(file, "{kept}").map_err(|error| anyhow!("the file of --failed: {error}"))
    }

    /// Prints the counts; the status says whether anything is left to do.
    pub fn conclude(&self) -> anyhow::Result<ExitCode> {
        let all: u64 = self.counts.values().sum();
        match self.output {
            Output::Json => print(&format!("{}\n", json!({"summary": self.counts})))?,
            Output::Text => {
                let mut text = format!("{all} requests\n");
                for (verdict, count) in &self.counts {
                    let _ = writeln!(text, "{count:>9}  {verdict}");
                }
                print(&text)?;
            }
        }
        let count = |verdict: &str| self.counts.get(verdict).copied().unwrap_or(0);
        Ok(if count(UNANSWERED) + count(UNSENT) > 0 {
            ExitCode::from(NO_ANSWER)
        } else if count(Kind::Reverted.name()) < all {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
