//! A dead letter as a line of a list or as a JSON object.

use console::measure_text_width;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker::{Origin, QueuedMessage};
use crate::cli::terminal::{ago, named, padded};
use crate::domain::request::BodySummary;

/// Digits of an id that are printed. They distinguish a million dead letters.
const ID_DIGITS: usize = 12;

/// The fields of a dead letter that its line needs.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: Uuid,
    pub reason: String,
    pub client: String,
    pub message_id: Option<String>,
    pub usage: String,
    pub since: Option<Timestamp>,
}

impl Listed {
    pub fn new(letter: &QueuedMessage, summary: &BodySummary) -> Self {
        Self {
            id: letter.id,
            reason: letter.reason.clone(),
            client: letter.client.clone(),
            message_id: letter.message_id.clone(),
            usage: usage(summary),
            since: letter.since,
        }
    }

    /// One line of `columns`, or several lines if the screen is narrower.
    pub fn text(&self, columns: Columns, width: Option<usize>, now: Timestamp) -> String {
        let id = short(self.id);
        let (reason, client) = (named(&self.reason), named(&self.client));
        let request = named(self.message_id.as_deref().unwrap_or_default());
        let (ago, usage) = (ago(self.since, now), &self.usage);
        if width.is_none_or(|width| columns.total() <= width) {
            let (reason, client) = (
                padded(&reason, columns.reason),
                padded(&client, columns.client),
            );
            return format!("{id}  {ago:>4}  {reason}  {client}  {usage:<36}  {request}\n");
        }
        format!("{id}  {reason}\n  {ago} ago, client {client}\n  request {request}\n  {usage}\n")
    }

    pub fn heading(columns: Columns, width: Option<usize>) -> String {
        if width.is_some_and(|width| columns.total() > width) {
            return String::new();
        }
        let (reason, client) = (
            padded("REASON", columns.reason),
            padded("CLIENT", columns.client),
        );
        format!(
            "{:<12}  {:>4}  {reason}  {client}  {:<36}  REQUEST\n",
            "ID", "AGE", "USAGE"
        )
    }
}

/// Widths of the columns whose width varies, without the last column.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    pub reason: usize,
    pub client: usize,
}

impl Columns {
    pub fn of<'a>(groups: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let least = Self {
            reason: 6,
            client: 6,
        };
        groups.fold(least, |columns, (reason, client)| Self {
            reason: columns.reason.max(measure_text_width(&named(reason))),
            client: columns.client.max(measure_text_width(&named(client))),
        })
    }

    /// Width of a line whose message id has 12 characters.
    fn total(self) -> usize {
        12 + 2 + 4 + 2 + self.reason + 2 + self.client + 2 + 36 + 2 + 12
    }
}

/// The first digits of an id.
pub fn short(id: Uuid) -> String {
    let mut digits = id.simple().to_string();
    digits.truncate(ID_DIGITS);
    digits
}

/// The usage of a request, or the size of a group.
fn usage(summary: &BodySummary) -> String {
    match (summary.group_size(), summary.usage_id()) {
        (Some(size), _) => group_of(size),
        (None, Some(usage)) => usage.to_string(),
        (None, None) => "-".into(),
    }
}

/// A group by its size, in words.
pub fn group_of(size: usize) -> String {
    let plural = if size == 1 { "" } else { "s" };
    format!("group of {size} request{plural}")
}

/// A dead letter as a JSON object.
pub fn object(letter: &QueuedMessage, summary: &BodySummary) -> Value {
    let amount = match summary {
        BodySummary::Request(request) => request.amount,
        BodySummary::Group(_) => None,
    };
    json!({
        "id": letter.id.simple().to_string(),
        "reason": letter.reason,
        "written_by": match letter.origin {
            Origin::Worker => "worker",
            Origin::OtherLogin => "another login",
            Origin::Broker if letter.is_unexplained() => "unknown",
            Origin::Broker => "broker",
            Origin::Unreadable => "unreadable",
        },
        "client": letter.client,
        "client_claimed_by": letter.claimed_by,
        "login": letter.login,
        "message_id": letter.message_id,
        "group_size": summary.group_size(),
        "usage_id": summary.usage_id(),
        "org_id": summary.org_id(),
        "amount": amount.map(|amount| amount.get().to_string()),
        "attempts": letter.attempts,
        "code": letter.noted.as_ref().and_then(|noted| noted.code),
        "message": letter.noted.as_ref().map(|noted| &noted.message),
        "since": letter.since,
        "body_bytes": letter.body_bytes,
        "cut_from_bytes": letter.cut_from,
    })
}
