//! Writes discarded dead letters to a file: one JSON object per line, with all bytes of the
//! message.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::listing::object;
use crate::broker::QueuedMessage;
use crate::common::printable;

/// The file of `--save`.
pub struct Save {
    path: PathBuf,
    /// `None` until the first dead letter is written.
    file: Option<BufWriter<File>>,
}

impl Save {
    /// Names a file that must not exist. It is created with the first dead letter.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!("the file {} exists already; name a new one", path.display());
        }
        Ok(Self {
            path: path.into(),
            file: None,
        })
    }

    /// Once this returns without an error, the dead letters are on disk.
    ///
    /// # Errors
    ///
    /// If the file exists already or cannot be written.
    pub fn write(&mut self, letters: &[QueuedMessage]) -> anyhow::Result<()> {
        let shown = self.path.display();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(create(&self.path)?)),
        };
        let written = letters.iter().try_for_each(|letter| {
            let mut line = object(letter, &letter.summary());
            line["properties"] = letter.shown_properties().into();
            line["header_base64"] = STANDARD.encode(&letter.header).into();
            line["body_base64"] = STANDARD.encode(&letter.body).into();
            writeln!(file, "{}", printable::json(&line.to_string()))
        });
        let kept = written.and_then(|()| file.flush());
        let kept = kept.and_then(|()| file.get_ref().sync_data());
        kept.with_context(|| format!("cannot write to {shown}"))
    }
}

/// Creates a file that only its owner can read, because bodies are payloads.
fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow::anyhow!("the file {shown} exists already; name a new one")
            }
            _ => anyhow::anyhow!("cannot create the file {shown}: {error}"),
        }
    })
}
