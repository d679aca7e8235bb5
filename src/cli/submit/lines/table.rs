//! Requests in a table: comma-separated values with a header, a request a line.
//!
//! No value of a request has a line break. A field that goes over several lines is one whose quotation mark was never
//! closed, which takes the lines after it along: nothing is sent of such a file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::rc::Rc;

use anyhow::{anyhow, bail};
use csv::StringRecord;
use serde_json::{Map, Value};

use super::line::{LineError, RequestLine, RequestLines, read};
use crate::cli::terminal::visible;

/// What the reader reads ahead of a record, at most.
const AHEAD_BYTES: u64 = 64 * 1024;

/// Columns of which a table needs one of each kind.
const NEEDED: [(&str, &[&str]); 3] = [
    ("usage_id", &["usage_id", "usageId"]),
    ("amount", &["amount"]),
    (
        "billing_id, org_id or project_id",
        &[
            "billing_id",
            "billingId",
            "org_id",
            "orgId",
            "project_id",
            "projectId",
        ],
    ),
];

pub fn lines(
    file: File,
    path: &Path,
    max_bytes: u64,
    batch: String,
) -> anyhow::Result<RequestLines> {
    let path = path.display();
    let left = Rc::new(Cell::new(max_bytes + AHEAD_BYTES));
    let text = Text {
        file,
        after_return: false,
        left: left.clone(),
    };
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header = table.headers();
    let header = header.map_err(|error| anyhow!("the header of {path}: {}", why(&error)))?;
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            bail!("{path} has two columns named {}; leave one", visible(name));
        }
    }
    // A file of no lines at all has nothing to ask.
    if !names.is_empty() {
        for (needed, spellings) in NEEDED {
            if !names.iter().any(|name| spellings.contains(&name.as_str())) {
                bail!(
                    "{path} has no column {needed} in its first line, which must name the columns; with a JSON object a \
                     line, say --format ndjson"
                );
            }
        }
    }
    let mut record = StringRecord::new();
    Ok(Box::new(std::iter::from_fn(move || {
        left.set(max_bytes + AHEAD_BYTES);
        match table.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => {
                let number = record.position().map_or(0, csv::Position::line);
                if record.iter().any(|cell| cell.contains('\n')) {
                    return Some(Err(unclosed(number)));
                }
                Some(Ok(line(number, &names, &record, &batch)))
            }
            Err(error) => match (error.position().map(csv::Position::line), error.kind()) {
                (number, csv::ErrorKind::Io(error)) if error.kind() == ErrorKind::FileTooLarge => {
                    Some(Err(unclosed(number.unwrap_or_else(|| {
                        // The record before it is known.
                        record.position().map_or(0, csv::Position::line)
                    }))))
                }
                (_, csv::ErrorKind::Io(error)) => {
                    Some(Err(io::Error::new(error.kind(), error.to_string())))
                }
                (number, _) => Some(Ok(Err(LineError {
                    number: number.unwrap_or(0),
                    why: "is not UTF-8".into(),
                }))),
            },
        }
    })))
}

fn line(
    number: u64,
    names: &[String],
    record: &StringRecord,
    batch: &str,
) -> Result<RequestLine, LineError> {
    if record.len() != names.len() {
        let why = format!(
            "has {} columns, and the header {}",
            record.len(),
            names.len()
        );
        return Err(LineError { number, why });
    }
    let cells = names.iter().cloned().zip(record.iter().map(Value::from));
    let object = Value::from(cells.collect::<Map<_, _>>());
    read(number, Ok(object.to_string().into_bytes()), batch)
}

fn unclosed(number: u64) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!(
            "line {number}: a field goes on over the end of its line; is a quotation mark never closed? Nothing was sent"
        ),
    )
}

fn why(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".into(),
        _ => error.to_string(),
    }
}

/// A file whose lines all end with a line feed, and of which no record takes more than is left.
struct Text {
    file: File,
    /// Whether a carriage return came last: a line feed after it is of the same line end.
    after_return: bool,
    left: Rc<Cell<u64>>,
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left.get();
            if left == 0 {
                return Err(io::Error::new(ErrorKind::FileTooLarge, "a record too long"));
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let most = most.min(buffer.len());
            let read = self.file.read(&mut buffer[..most])?;
            self.left.set(left - read as u64);
            let mut kept = 0;
            for index in 0..read {
                let byte = buffer[index];
                if byte != b'\n' || !self.after_return {
                    buffer[kept] = if byte == b'\r' { b'\n' } else { byte };
                    kept += 1;
                }
                self.after_return = byte == b'\r';
            }
            // Nothing is the end.
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}
