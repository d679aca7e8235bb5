//! Discarded letters in a file: an object a line, with everything that came over the wire.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::letters::object;
use crate::broker::Letter;
use crate::request::Fragments;

/// A file that is being written.
pub struct Save {
    file: BufWriter<File>,
    shown: String,
}

impl Save {
    /// A new file, which only its owner reads: bodies are payloads.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let mut options = File::options();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path);
        let file = file.with_context(|| format!("cannot make the file {shown}; name a new one"))?;
        Ok(Self {
            file: BufWriter::new(file),
            shown,
        })
    }

    /// Once this returns, the letters are on the disk.
    pub fn write(&mut self, letters: &[Letter]) -> anyhow::Result<()> {
        let written = letters.iter().try_for_each(|letter| {
            let mut line = object(letter, &Fragments::of(&letter.body));
            line["properties"] = letter.shown_properties().into();
            line["header_base64"] = STANDARD.encode(&letter.header).into();
            line["body_base64"] = STANDARD.encode(&letter.body).into();
            writeln!(self.file, "{line}")
        });
        let kept = written.and_then(|()| self.file.flush());
        let kept = kept.and_then(|()| self.file.get_ref().sync_data());
        kept.with_context(|| format!("cannot write to {}", self.shown))
    }
}
