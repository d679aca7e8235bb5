//! Decides for each dead letter whether a run takes it, and what prevents that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::filter;
use super::filter::LetterFilter;
use super::listing::short;
use crate::broker::{Origin, QueuedMessage};
use crate::cli::terminal::named;
use crate::domain::refusal::FailureReason;
use crate::domain::request::BodySummary;
use crate::ledger::admin::interventions::InterventionKind;

/// Most candidates that are kept for an id; two already make the id ambiguous.
const CANDIDATES_MAX: usize = 10;

/// The reason of letters that are no requests.
const MALFORMED: &str = FailureReason::MalformedRequest.row().reason;

/// Why a selected dead letter cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    Malformed,
    TooLarge,
    Unreadable,
    OtherLogin,
}

impl Obstacle {
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::OtherLogin => "of_another_login",
        }
    }

    /// The obstacle, and the operator's remedy.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => {
                "no valid request, and would be dead-lettered again (--include-malformed replays \
                 it all the same)"
            }
            Self::TooLarge => {
                "larger than amqp.max_message_bytes and amqp.max_group_bytes, and would be \
                 dead-lettered again"
            }
            Self::Unreadable => {
                "its properties cannot be read, so it cannot be published again (discard --save \
                 keeps its bytes)"
            }
            Self::OtherLogin => {
                "its client is named by a login that is neither that of amqp.url nor in \
                 amqp.trusted_users: if it is a former login of the worker, or an operator's, add \
                 it there, for this command and for the workers; if a publisher put the name \
                 there, that publisher must send the request again"
            }
        }
    }
}

/// What a run does with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is not selected.
    Other,
    /// It is selected, and stays in the queue.
    Left(Obstacle),
    Taken,
}

/// The dead letters that a run selects.
#[derive(Debug)]
pub struct Selection {
    pub action: InterventionKind,
    pub filter: LetterFilter,
    /// The ids as the operator gave them.
    pub ids: Vec<String>,
    /// The ids of the dead letters that `ids` identify, once they are known.
    pub resolved: Option<BTreeSet<Uuid>>,
    pub include_malformed: bool,
    pub max_body_bytes: u64,
    /// The time from which ages are measured.
    pub now: Timestamp,
}

impl Selection {
    pub fn judge(&self, letter: &QueuedMessage, summary: &BodySummary) -> Judged {
        let identifies = |id: &String| filter::names(id, letter, summary);
        let is_named = match &self.resolved {
            Some(letters) => letters.contains(&letter.id),
            None => self.ids.is_empty() || self.ids.iter().any(identifies),
        };
        if !is_named || !self.filter.fits(letter, summary, self.now) {
            return Judged::Other;
        }
        match self.obstacle(letter) {
            Some(obstacle) => Judged::Left(obstacle),
            None => Judged::Taken,
        }
    }

    fn obstacle(&self, letter: &QueuedMessage) -> Option<Obstacle> {
        if self.action == InterventionKind::Discard {
            return None;
        }
        match letter.origin {
            Origin::Unreadable => Some(Obstacle::Unreadable),
            Origin::OtherLogin => Some(Obstacle::OtherLogin),
            // A truncated body cannot be replayed, even if the limit is larger now.
            Origin::Worker | Origin::Broker
                if letter.cut_from.is_some() || letter.body_bytes > self.max_body_bytes =>
            {
                Some(Obstacle::TooLarge)
            }
            Origin::Worker | Origin::Broker => {
                let malformed = letter.reason == MALFORMED && !self.include_malformed;
                malformed.then_some(Obstacle::Malformed)
            }
        }
    }

    /// The selection as `revertd.interventions` stores it.
    pub fn noted(&self) -> Value {
        let mut noted = self.filter.noted();
        if !self.ids.is_empty() {
            noted.insert("ids".into(), json!(self.ids));
        }
        if noted.is_empty() {
            noted.insert("all".into(), json!(true));
        }
        if self.include_malformed {
            noted.insert("include_malformed".into(), json!(true));
        }
        Value::Object(noted)
    }
}

/// The dead letters that an id may identify: their ids, and a line of text for each.
#[derive(Debug, Default)]
pub struct Candidates(BTreeMap<Uuid, String>);

impl Candidates {
    pub fn add(&mut self, letter: &QueuedMessage) {
        if self.0.len() < CANDIDATES_MAX {
            let request = named(letter.message_id.as_deref().unwrap_or_default());
            let (client, reason) = (named(&letter.client), named(&letter.reason));
            let line = format!(
                "{}  {reason}, client {client}, request {request}",
                short(letter.id)
            );
            self.0.entry(letter.id).or_insert(line);
        }
    }

    /// The only candidate. Copies of a message count as one.
    ///
    /// # Errors
    ///
    /// If the id identifies no dead letter, or several.
    pub fn only(&self, id: &str) -> anyhow::Result<Uuid> {
        let mut letters = self.0.iter();
        match (letters.next(), letters.next()) {
            (Some((letter, _)), None) => Ok(*letter),
            (None, _) => bail!(
                "no dead letter has the id {}; see: revertd dead-letters list",
                named(id)
            ),
            (Some(_), Some(_)) => {
                let mut text = format!(
                    "{} may identify several letters; give more digits of its id:",
                    named(id)
                );
                for line in self.0.values() {
                    let _ = write!(text, "\n  {line}");
                }
                bail!(text)
            }
        }
    }
}
