//! The lines of a file in groups, each of which is sent as one message.

use std::collections::HashSet;
use std::io;

use serde::Serialize;

use super::args::FileArgs;
use super::lines::{RequestLine, RequestLines, RequestSource};
use super::looked::Looked;
use crate::broker::Submission;
use crate::config::Settings;
use crate::domain::request::{Fields, digest};

/// Requests of a group, where nothing else is given.
const SIZE: u32 = 100;

/// Requests that wait for their answers at a time, where nothing else is given: so many, or so many
/// groups if these are more.
const WINDOW: u32 = 500;
const WINDOW_GROUPS: u32 = 20;

/// How the lines are grouped, and how many are in flight.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// Most requests of a group. With 1, each request is sent by itself.
    pub size: usize,
    /// Most bytes of a group.
    pub max_bytes: usize,
    /// Whether each group is reverted as a whole or not at all.
    pub is_atomic: bool,
    /// Most requests in flight.
    pub window: usize,
    /// What the id of a group begins with.
    pub batch: String,
}

impl Grouping {
    /// By the arguments and the limits of the configuration.
    ///
    /// # Errors
    ///
    /// If they contradict each other.
    pub fn new(settings: &Settings, args: &FileArgs, batch: &str) -> Result<Self, String> {
        let max = u32::from(settings.amqp.max_group);
        let size = match (args.group_size, args.window) {
            (Some(size), _) if size > max => {
                return Err(format!(
                    "--group-size {size} is more than the {max} requests of amqp.max_group"
                ));
            }
            (Some(size), Some(window)) if size > window => {
                return Err(format!(
                    "--group-size {size} is more than --window {window}"
                ));
            }
            (Some(size), _) => size,
            // Not more at once than may be in flight, nor than a tenth of a second allows.
            (None, window) => {
                let tenth = args.rate.map(|rate| (rate / 10).max(1));
                [window, tenth]
                    .into_iter()
                    .flatten()
                    .fold(SIZE.min(max), u32::min)
            }
        };
        let window = args.window.unwrap_or(WINDOW.max(WINDOW_GROUPS * size));
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            size: count(size),
            max_bytes: usize::try_from(settings.amqp.max_group_bytes.bytes()).unwrap_or(usize::MAX),
            is_atomic: args.atomic,
            window: count(window),
            batch: batch.to_owned(),
        })
    }
}

/// Lines that are sent as one message.
pub struct LineGroup {
    /// At least one. Their ids differ.
    pub requests: Vec<RequestLine>,
    /// Lines that ask the same as one of `requests` under its id. They are not sent, and are
    /// answered as that is.
    pub repeated: Vec<RequestLine>,
    message: (String, Vec<u8>),
}

impl LineGroup {
    /// The number of lines.
    pub fn lines(&self) -> usize {
        self.requests.len() + self.repeated.len()
    }

    /// The message, which is known by the number of the first line.
    pub fn submission(&self, max_attempts: Option<u32>) -> Submission {
        let (message_id, body) = self.message.clone();
        Submission {
            message_id,
            correlation_id: self.requests[0].number.to_string(),
            body,
            max_attempts,
        }
    }
}

/// Reads the groups of a file.
pub struct Groups<'a> {
    looked: &'a Looked,
    grouping: &'a Grouping,
    lines: RequestLines,
    /// A line that the group before it had no room for.
    held: Option<RequestLine>,
    /// The error of the lines after the group that was read last.
    failed: Option<io::Error>,
}

impl<'a> Groups<'a> {
    /// From the beginning.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn new(
        source: &RequestSource,
        looked: &'a Looked,
        grouping: &'a Grouping,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            looked,
            grouping,
            lines: source.lines()?,
            held: None,
            failed: None,
        })
    }

    /// The next group.
    ///
    /// # Errors
    ///
    /// If the file cannot be read further. The lines before are in the groups that were read.
    pub fn next(&mut self) -> io::Result<Option<LineGroup>> {
        let mut growing = Growing::new(self.grouping);
        while growing.requests.len() < self.grouping.size {
            match self.next_line() {
                Ok(Some(line)) => {
                    self.held = growing.add(line);
                    if self.held.is_some() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if growing.requests.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(growing.finish())
    }

    fn next_line(&mut self) -> io::Result<Option<RequestLine>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.held.take() {
            Some(line) => Ok(Some(line)),
            None => self.looked.next(&mut self.lines),
        }
    }
}

/// A group that grows.
struct Growing<'a> {
    grouping: &'a Grouping,
    requests: Vec<RequestLine>,
    repeated: Vec<RequestLine>,
    ids: HashSet<String>,
    body: Vec<u8>,
}

/// An element of `requests`.
#[derive(Serialize)]
struct Element<'a> {
    request_id: &'a str,
    #[serde(flatten)]
    fields: &'a Fields,
}

/// The end of a group's body.
const END: &[u8] = b"]}";

impl<'a> Growing<'a> {
    fn new(grouping: &'a Grouping) -> Self {
        Self {
            grouping,
            requests: Vec::new(),
            repeated: Vec::new(),
            ids: HashSet::new(),
            body: format!("{{\"atomic\":{},\"requests\":[", grouping.is_atomic).into_bytes(),
        }
    }

    /// Adds a line, or returns it if the group has no room for it.
    fn add(&mut self, line: RequestLine) -> Option<RequestLine> {
        if self.ids.contains(&line.message_id) {
            self.repeated.push(line);
            return None;
        }
        let element = Element {
            request_id: &line.message_id,
            fields: &line.fields,
        };
        let element = serde_json::to_vec(&element).expect("text and numbers are JSON");
        if !self.requests.is_empty() {
            if self.body.len() + element.len() + 1 + END.len() > self.grouping.max_bytes {
                return Some(line);
            }
            self.body.push(b',');
        }
        self.body.extend_from_slice(&element);
        self.ids.insert(line.message_id.clone());
        self.requests.push(line);
        None
    }

    /// The group; `None` if it has no line.
    fn finish(mut self) -> Option<LineGroup> {
        let first = self.requests.first()?;
        let message = if self.grouping.size == 1 {
            (
                first.message_id.clone(),
                first.body().to_string().into_bytes(),
            )
        } else {
            self.body.extend_from_slice(END);
            // The same lines have the same id.
            let id = format!("{}-group-{}", self.grouping.batch, digest(&[&self.body]));
            (id, self.body)
        };
        Some(LineGroup {
            requests: self.requests,
            repeated: self.repeated,
            message,
        })
    }
}

#[cfg(test)]
mod tests;
