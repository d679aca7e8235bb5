//! Writes requests for usages, one JSON object per line, as `revertd submit --file` reads them.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::cli::output::written;
use crate::common::printable;
use crate::ledger::admin::usages::RevertableUsage;

/// A request, in the order of its fields in the file.
#[derive(Serialize)]
struct RequestLine<'a> {
    message_id: String,
    usage_id: Uuid,
    amount: String,
    billing_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The line of a usage, with its line feed.
pub fn line(usage: &RevertableUsage, batch: &str, reason: Option<&str>) -> anyhow::Result<String> {
    let line = serde_json::to_string(&RequestLine {
        message_id: request_id(batch, usage),
        usage_id: usage.id,
        amount: usage.remaining.to_string(),
        billing_id: usage.account_id,
        reason,
    })?;
    Ok(format!("{}\n", printable::json(&line)))
}

/// The id follows from the batch, the usage, and the amount that was reverted before. A request for
/// the rest of a usage is therefore another one than that for the whole usage.
fn request_id(batch: &str, usage: &RevertableUsage) -> String {
    let id = usage.id;
    match usage.reverted {
        0 => format!("{batch}-{id}"),
        reverted => format!("{batch}-{id}-after-{reverted}"),
    }
}

/// Where the requests go.
pub enum Target {
    Stdout,
    /// A temporary file beside the target. It is moved there at the end, so the target is always
    /// complete. Only its owner can read it. It is removed if the command fails.
    File(NamedTempFile, PathBuf),
}

impl Target {
    /// Names a file that must not exist; `None` for standard output.
    ///
    /// # Errors
    ///
    /// If the file exists, or its folder cannot be written to.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let shown = path.display();
        if path.symlink_metadata().is_ok() {
            bail!("the file {shown} exists already; name a new one");
        }
        let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| anyhow!("cannot create the file {shown}: {error}"))?;
        Ok(Self::File(file, path.to_owned()))
    }

    /// Writes lines; `false` if no more are wanted, because standard output is closed.
    pub fn write(&mut self, lines: &str) -> anyhow::Result<bool> {
        match self {
            Self::Stdout => Ok(written(lines)?),
            Self::File(file, path) => {
                let done = file.write_all(lines.as_bytes());
                done.with_context(|| format!("cannot write to {}", path.display()))?;
                Ok(true)
            }
        }
    }

    /// Moves the file to its place.
    ///
    /// # Errors
    ///
    /// If another file has the name by now, or the disk fails.
    pub fn finish(self) -> anyhow::Result<()> {
        let Self::File(file, path) = self else {
            return Ok(());
        };
        let shown = path.display();
        let synced = file.as_file().sync_all();
        synced.with_context(|| format!("cannot write to {shown}"))?;
        file.persist_noclobber(&path)
            .map_err(|error| match error.error.kind() {
                ErrorKind::AlreadyExists => {
                    anyhow!("the file {shown} exists by now, and was kept; name a new one")
                }
                _ => anyhow!("cannot create the file {shown}: {}", error.error),
            })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::{Amount, decode, text_member};

    fn usage(reverted: i64) -> RevertableUsage {
        RevertableUsage {
            id: Uuid::from_u128(1),
            account_id: Uuid::from_u128(2),
            remaining: Amount::new(i64::MAX - reverted).expect("positive"),
            reverted,
        }
    }

    #[test]
    fn a_line_is_a_request_with_an_id_of_its_own() {
        let batch = "\u{200b}".repeat(33);
        let reason = "falsch \u{202e} \"gezählt\"";
        for reverted in [0, 5, i64::MAX - 1] {
            let line = line(&usage(reverted), &batch, Some(reason)).expect("JSON");
            assert!(line.is_ascii() || line.contains("gezählt"), "{line}");
            assert!(!line.contains(['\u{200b}', '\u{202e}']), "{line}");
            let fields = decode(line.as_bytes()).expect("a request");
            assert_eq!(fields.amount.get(), i64::MAX - reverted);
            assert_eq!(fields.billing_id, Some(Uuid::from_u128(2)));
            assert_eq!(fields.reason.as_deref(), Some(reason));
            let id = text_member(line.as_bytes(), ["message_id", "messageId"]);
            let id = id.ok().flatten().expect("an id");
            assert!(id.starts_with(&batch) && id.len() <= 255, "{id}");
            assert_eq!(id.ends_with(&format!("-after-{reverted}")), reverted > 0);
        }
    }
}
