//! Selects dead letters by reason, client, org, usage and age.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::broker::QueuedMessage;
use crate::cli::time_span::time_span;
use crate::domain::refusal::FailureReason;
use crate::domain::request::{BodySummary, Fragments};

/// Fewest leading digits that identify a dead letter by its id.
const ID_MIN_DIGITS: usize = 6;

/// Reasons of dead letters: two that a worker writes, four that the broker writes, and two for
/// messages whose properties are unreadable or that carry no reason.
const REASONS: [&str; 8] = [
    FailureReason::RetriesExhausted.row().reason,
    FailureReason::MalformedRequest.row().reason,
    "expired",
    "delivery_limit",
    "rejected",
    "maxlen",
    "unreadable",
    "unknown",
];

/// All given filters must match. A filter that is given several times matches any of its values.
#[derive(Clone, Debug, Default, Args)]
pub struct LetterFilter {
    /// Reason of the dead letter. A worker writes capitals, the broker writes small letters.
    #[arg(long, value_name = "REASON", ignore_case = true,
        value_parser = clap::builder::PossibleValuesParser::new(REASONS))]
    reason: Vec<String>,
    /// Client of the request; '' for requests without a client.
    #[arg(long)]
    client: Vec<String>,
    /// Org that the body, or a request of the group, names by its id.
    #[arg(long, value_name = "UUID")]
    org: Option<Uuid>,
    /// Usage that the body, or a request of the group, names.
    #[arg(long, value_name = "UUID")]
    usage: Option<Uuid>,
    /// First attempted (or dead-lettered by the broker) longer ago than this: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = time_span)]
    older_than: Option<Duration>,
    /// First attempted (or dead-lettered by the broker) at most this long ago.
    #[arg(long, value_name = "DURATION", value_parser = time_span)]
    newer_than: Option<Duration>,
}

impl LetterFilter {
    /// Whether no filter is given.
    pub fn is_empty(&self) -> bool {
        let Self {
            reason,
            client,
            org,
            usage,
            older_than,
            newer_than,
        } = self;
        let lists = reason.is_empty() && client.is_empty();
        lists && org.is_none() && usage.is_none() && older_than.is_none() && newer_than.is_none()
    }

    /// Whether a dead letter matches. One without a time matches no age filter.
    /// A group matches if one of its requests has both the org and the usage.
    pub fn fits(&self, letter: &QueuedMessage, summary: &BodySummary, now: Timestamp) -> bool {
        let age = letter.since.map(|since| now.duration_since(since));
        let age = age.map(|age| Duration::try_from(age).unwrap_or_default());
        let same = |reason: &String| reason.eq_ignore_ascii_case(&letter.reason);
        let named = |request: &Fragments| {
            self.org.is_none_or(|org| request.org_id == Some(org))
                && self
                    .usage
                    .is_none_or(|usage| request.usage_id == Some(usage))
        };
        (self.reason.is_empty() || self.reason.iter().any(same))
            && (self.client.is_empty() || self.client.contains(&letter.client))
            && summary.fragments().any(named)
            && self
                .older_than
                .is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self
                .newer_than
                .is_none_or(|limit| age.is_some_and(|age| age <= limit))
    }

    /// The filter as `revertd.interventions` stores it.
    pub fn noted(&self) -> Map<String, Value> {
        let duration = |limit: Duration| json!(humantime::format_duration(limit).to_string());
        let given = [
            (
                "reason",
                (!self.reason.is_empty()).then(|| json!(self.reason)),
            ),
            (
                "client",
                (!self.client.is_empty()).then(|| json!(self.client)),
            ),
            ("org", self.org.map(|org| json!(org))),
            ("usage", self.usage.map(|usage| json!(usage))),
            ("older_than", self.older_than.map(duration)),
            ("newer_than", self.newer_than.map(duration)),
        ];
        let given = given.into_iter();
        given
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

/// Whether `id` identifies the dead letter: its message id, the id of a request of its group, or
/// the first digits of its own id.
pub fn names(id: &str, letter: &QueuedMessage, summary: &BodySummary) -> bool {
    let is_member = summary.members().iter().any(|request| request.id == id);
    if is_member || letter.message_id.as_deref() == Some(id) {
        return true;
    }
    let digits = id.replace('-', "").to_ascii_lowercase();
    digits.len() >= ID_MIN_DIGITS && letter.id.simple().to_string().starts_with(&digits)
}

pub fn id(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must be a message id, or at least 6 digits of a dead letter's id".into());
    }
    Ok(text.to_owned())
}

pub fn why(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err("must give a reason, in a few words".into());
    }
    Ok(text.to_owned())
}
