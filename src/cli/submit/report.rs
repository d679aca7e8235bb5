//! Counts the results of a file's requests by outcome, and writes the requests that were not
//! reverted to a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::lines::RequestLine;
use super::summary::summary;
use crate::cli::output::{Output, print, print_json};
use crate::domain::event::EventType;

/// Exit status if a request got no answer in time. It is still processed.
pub const NO_ANSWER: u8 = 3;

/// Verdicts that are counted beside the reasons of events.
pub const UNANSWERED: &str = "NO_ANSWER_IN_TIME";
pub const UNSENT: &str = "NOT_SENT";
pub const INVALID: &str = "INVALID_LINE";

/// Context of errors of that file.
const OF_FAILED: &str = "cannot write the file of --failed";

/// Counts the results, and prints them line by line.
pub struct SubmitReport {
    output: Output,
    counts: BTreeMap<String, u64>,
    failed: Option<Failed>,
}

/// The file of requests that were not reverted.
enum Failed {
    /// A temporary file beside the target. It is moved there at the end, so the target is always
    /// complete.
    Beside(NamedTempFile, PathBuf),
    /// A target that is no regular file, such as /dev/stdout.
    Direct(File),
}

impl Failed {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot write {}", path.display());
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Direct(File::create(path).with_context(context)?));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(context)?;
        Ok(Self::Beside(file, path.to_owned()))
    }

    fn add(&mut self, line: &Value) -> anyhow::Result<()> {
        let file = match self {
            Self::Beside(file, _) => file.as_file_mut(),
            Self::Direct(file) => file,
        };
        writeln!(file, "{line}").context(OF_FAILED)
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self::Beside(file, path) = self else {
            return Ok(());
        };
        file.as_file().sync_all().context(OF_FAILED)?;
        file.persist(path).context(OF_FAILED)?;
        Ok(())
    }
}

impl SubmitReport {
    /// Starts a report. The file `failed` is replaced.
    ///
    /// # Errors
    ///
    /// If the file `failed` cannot be created.
    pub fn new(output: Output, failed: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            output,
            counts: BTreeMap::new(),
            failed: failed.map(Failed::create).transpose()?,
        })
    }

    /// Counts lines that were skipped as invalid.
    pub fn skipped(&mut self, lines: u64) {
        if lines > 0 {
            self.counts.insert(INVALID.into(), lines);
        }
    }

    /// Counts the event that answers a line.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn answered(&mut self, line: &RequestLine, event: &Value) -> anyhow::Result<()> {
        let reverted = event["type"] == EventType::Reverted.name();
        let reason = &event["data"]["error"]["details"][0]["reason"];
        let verdict = if reverted { &event["type"] } else { reason };
        let verdict = verdict.as_str().unwrap_or("?").to_owned();
        *self.counts.entry(verdict.clone()).or_default() += 1;
        let kept = if reverted {
            Ok(())
        } else {
            let message = event["data"]["error"]["message"].as_str().unwrap_or("?");
            let is_final = event["type"] == EventType::Rejected.name();
            self.keep(line, &verdict, message, is_final)
        };
        match self.output {
            Output::Json => print_json(&json!({"line": line.number, "event": event}))?,
            Output::Text if reverted => {}
            Output::Text => print(&format!("line {}: {}\n", line.number, summary(event)))?,
        }
        kept
    }

    /// Counts a line that has no answer, or was never sent.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn left(&mut self, line: &RequestLine, why: &str) -> anyhow::Result<()> {
        *self.counts.entry(why.to_owned()).or_default() += 1;
        let kept = self.keep(line, why, "send it again: nothing is reverted twice", false);
        if self.output == Output::Json {
            print_json(&json!({"line": line.number, "left": why}))?;
        }
        kept
    }

    /// Writes a line to the file of requests that were not reverted, as a request that can be sent
    /// again. A request without a final decision keeps the message id under which it was sent: it
    /// may still be reverted, and under another id it would be another revert. A rejected request
    /// keeps the message id of its line. Without one, the next batch generates its id. The reader
    /// of the file ignores the member `failed`.
    fn keep(
        &mut self,
        line: &RequestLine,
        reason: &str,
        message: &str,
        is_final: bool,
    ) -> anyhow::Result<()> {
        let Some(failed) = &mut self.failed else {
            return Ok(());
        };
        let mut kept = line.body();
        if line.has_own_id || !is_final {
            kept["message_id"] = json!(line.message_id);
        }
        kept["failed"] = json!({
            "line": line.number,
            "request_id": line.message_id,
            "reason": reason,
            "message": message,
        });
        failed.add(&kept)
    }

    /// Prints the counts. The exit status says whether a request is unanswered or not reverted.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn conclude(self) -> anyhow::Result<ExitCode> {
        let finished = self.failed.map_or(Ok(()), Failed::finish);
        let all: u64 = self.counts.values().sum();
        match self.output {
            Output::Json => print_json(&json!({"summary": self.counts}))?,
            Output::Text => {
                let mut text = format!("{all} requests\n");
                for (verdict, count) in &self.counts {
                    let _ = writeln!(text, "{count:>9}  {verdict}");
                }
                print(&text)?;
            }
        }
        finished?;
        let count = |verdict: &str| self.counts.get(verdict).copied().unwrap_or(0);
        Ok(if count(UNANSWERED) + count(UNSENT) > 0 {
            ExitCode::from(NO_ANSWER)
        } else if count(EventType::Reverted.name()) < all {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}
