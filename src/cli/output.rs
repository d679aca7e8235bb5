//! Results on standard output, for people and for programs.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::common::printable;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Prints lines to standard output. A closed pipe is no error.
pub fn print(text: &str) -> std::io::Result<()> {
    printed(text).map(|_| ())
}

/// Prints lines to standard output; `false` if the pipe is closed.
pub fn printed(text: &str) -> std::io::Result<bool> {
    written(&printable::lines(text))
}

/// Prints an object in a line.
pub fn print_json(object: &Value) -> std::io::Result<()> {
    printed_json(object).map(|_| ())
}

/// Prints lines to standard output; `false` if the pipe is closed.
pub fn printed_json(object: &Value) -> std::io::Result<bool> {
    written(&printable::json(&format!("{object}\n")))
}

/// Prints an object in several lines.
pub fn print_pretty(object: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(object)?;
    written(&printable::json(&format!("{text}\n")))?;
    Ok(())
}

/// Writes bytes to standard output, unchanged; `false` if the pipe is closed.
pub fn written(text: &str) -> std::io::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}
