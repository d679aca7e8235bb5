//! Reads requests from a table: comma-separated values with a header, one request per line.
//!
//! No value of a request contains a line break. A field with a line break has an opening quotation
//! mark without a closing one, and includes the following lines. No request of such a file is sent.

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

/// Most bytes that the CSV reader reads ahead of a record.
const AHEAD_BYTES: u64 = 64 * 1024;

/// Required columns: a table needs one column of each group.
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
            bail!("{path} has two columns named {}; remove one", visible(name));
        }
    }
    // An empty file has no header, and is no error.
    if !names.is_empty() {
        for (needed, spellings) in NEEDED {
            if !names.iter().any(|name| spellings.contains(&name.as_str())) {
                bail!(
                    "{path} has no column {needed} in its first line, which must name the columns; \
                     for a file with one JSON object per line, use --format ndjson"
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
                        // The error has no position, so the previous record's line is used.
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
            "has {} columns, but the header has {}",
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
            "line {number}: a field contains a line break, so a closing quotation mark may be \
             missing; nothing was sent"
        ),
    )
}

fn why(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".into(),
        _ => error.to_string(),
    }
}

/// A file whose line ends are all converted to a line feed. It limits the bytes of each record.
struct Text {
    file: File,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line
    /// end.
    after_return: bool,
    left: Rc<Cell<u64>>,
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left.get();
            if left == 0 {
                return Err(io::Error::new(
                    ErrorKind::FileTooLarge,
                    "the record is too long",
                ));
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
            // An empty read would mean the end of the file.
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}
