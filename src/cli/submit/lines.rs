//! Reads requests from a file: one JSON object per line, or a table with a header. It reads a line
//! at a time, so its memory does not grow with the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

mod line;
mod table;

use line::read;
pub use line::{LineError, RequestLine, RequestLines};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// A file of requests, which can be read several times.
pub struct RequestSource {
    pub path: PathBuf,
    pub format: Format,
    /// Prefix of generated message ids.
    pub batch: String,
    /// Longest line, in bytes.
    pub line_max_bytes: u64,
}

impl RequestSource {
    /// The format that a file name's extension indicates.
    pub fn format_of(path: &Path) -> Format {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("csv") => Format::Csv,
            _ => Format::Ndjson,
        }
    }

    /// Reads the file from the beginning.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the header of a table is invalid.
    pub fn lines(&self) -> anyhow::Result<RequestLines> {
        let path = self.path.display();
        let file = File::open(&self.path).with_context(|| format!("cannot read {path}"));
        let file = file.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let batch = self.batch.clone();
        match self.format {
            Format::Ndjson => {
                let texts = Texts {
                    reader: BufReader::new(file),
                    number: 0,
                    max_bytes: self.line_max_bytes,
                };
                Ok(Box::new(texts.map(move |text| {
                    let (number, text) = text?;
                    Ok(read(number, text, &batch))
                })))
            }
            Format::Csv => table::lines(file, &self.path, self.line_max_bytes, batch),
        }
    }
}

/// Lines of bounded length, with their numbers; empty lines are skipped.
struct Texts {
    reader: BufReader<File>,
    number: u64,
    max_bytes: u64,
}

impl Texts {
    fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        let max = self.max_bytes + 1;
        let read = self
            .reader
            .by_ref()
            .take(max)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() != Some(&b'\n') && read as u64 == max {
            self.reader.skip_until(b'\n')?;
            let max = self.max_bytes;
            return Ok(Some(Err(format!(
                "is longer than {max} bytes (amqp.max_message_bytes)"
            ))));
        }
        if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(Some(Ok(line)))
    }
}

impl Iterator for Texts {
    type Item = io::Result<(u64, Result<Vec<u8>, String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_line() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(Ok(line))) if line.trim_ascii().is_empty() => {}
                Ok(Some(line)) => return Some(Ok((self.number, line))),
            }
        }
    }
}
