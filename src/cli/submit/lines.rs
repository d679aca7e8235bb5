//! Reads requests from a file: one JSON object per line, or a table with a header. It reads a line
//! at a time, so its memory does not grow with the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::domain::request::{Envelope, Fields, RevertRequest, Undecodable, decode, text_member};

mod table;

/// The format of a file.
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

/// A request of a file.
#[derive(Clone, Debug)]
pub struct RequestLine {
    /// Line number, from 1. The header counts as a line.
    pub number: u64,
    /// The request's message id: from the file, or generated from the batch and the content.
    pub message_id: String,
    /// Whether the message id is from the file.
    pub has_own_id: bool,
    pub fields: Fields,
}

/// A line that is no valid request, and the reason.
pub struct LineError {
    pub number: u64,
    pub why: String,
}

pub type RequestLines = Box<dyn Iterator<Item = io::Result<Result<RequestLine, LineError>>>>;

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

fn read(number: u64, text: Result<Vec<u8>, String>, batch: &str) -> Result<RequestLine, LineError> {
    let failed = |why| Err(LineError { number, why });
    let text = match text {
        Ok(text) => text,
        Err(why) => return failed(why),
    };
    let fields = match decode(&text) {
        Ok(fields) => fields,
        Err(Undecodable::Malformed(why)) => return failed(why),
        Err(Undecodable::Invalid { violations, .. }) => {
            let all = violations
                .iter()
                .map(|violation| format!("{} {}", violation.field, violation.description));
            return failed(all.collect::<Vec<_>>().join("; "));
        }
    };
    let Ok(message_id) = text_member(&text, ["message_id", "messageId"]) else {
        return failed("message_id must be a text, and be given once, in one spelling".into());
    };
    let message_id = message_id.filter(|id| !id.is_empty());
    if message_id
        .as_ref()
        .is_some_and(|id| id.len() > 255 || id.contains('\0'))
    {
        return failed("message_id must have at most 255 bytes, none of them 0".into());
    }
    Ok(RequestLine {
        number,
        has_own_id: message_id.is_some(),
        message_id: message_id.unwrap_or_else(|| format!("{batch}-{}", content(&fields))),
        fields,
    })
}

fn content(fields: &Fields) -> Uuid {
    RevertRequest::new(&Envelope::default(), fields.clone(), true).content
}

/// Lines of bounded length, with their numbers. Empty lines are skipped.
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

impl RequestLine {
    /// The digest of the request's content, independent of its spelling.
    pub fn content(&self) -> Uuid {
        content(&self.fields)
    }

    /// The body of the request message.
    pub fn body(&self) -> Value {
        let fields = &self.fields;
        let mut body = Map::new();
        body.insert("usage_id".into(), json!(fields.usage_id));
        body.insert("amount".into(), json!(fields.amount.to_string()));
        if let Some(id) = fields.billing_id {
            body.insert("billing_id".into(), json!(id));
        }
        let references = [
            ("org_id", &fields.org_id),
            ("project_id", &fields.project_id),
        ];
        for (name, reference) in references {
            if let Some(reference) = reference {
                body.insert(name.into(), json!(reference.to_string()));
            }
        }
        if let Some(reason) = &fields.reason {
            body.insert("reason".into(), json!(reason));
        }
        Value::from(body)
    }
}
