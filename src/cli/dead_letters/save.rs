//! Discarded letters in a file: an object a line, with everything that came over the wire.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::listing::object;
use crate::broker::QueuedMessage;
use crate::common::printable;

/// A file that is being written.
pub struct Save {
    path: PathBuf,
    /// Once there is something to save.
    file: Option<BufWriter<File>>,
}

impl Save {
    /// A file that is not there yet.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        if path.symlink_metadata().is_ok() {
            bail!(
                "the file {} is there already; name a new one",
                path.display()
            );
        }
        Ok(Self {
            path: path.into(),
            file: None,
        })
    }

    /// Once this returns, the letters are on the disk.
    pub fn write(&mut self, letters: &[QueuedMessage]) -> anyhow::Result<()> {
        let shown = self.path.display();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(create(&self.path)?)),
        };
        let written = letters.iter().try_for_each(|letter| {
            let mut line = object(letter, &letter.told());
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

/// A new file, which only its owner reads: bodies are payloads.
fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow::anyhow!("the file {shown} is there already; name a new one")
            }
            _ => anyhow::anyhow!("cannot make the file {shown}: {error}"),
        }
    })
}
