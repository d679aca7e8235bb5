//! What is done with each letter: meant or not, and what stands in the way.

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
use crate::domain::request::Fragments;
use crate::ledger::admin::interventions::InterventionKind;

/// Candidates for an id that are told apart; more are not needed to see that it is ambiguous.
const CANDIDATES_MAX: usize = 10;

/// The reason of letters that are no requests.
const MALFORMED: &str = FailureReason::MalformedRequest.row().reason;

/// Why a letter that is meant can't be replayed.
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

    /// What it is, and what to do.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => {
                "no request, and would only come back (--include-malformed takes it all the same)"
            }
            Self::TooLarge => "larger than amqp.max_message_bytes, and would only come back",
            Self::Unreadable => {
                "properties that can't be read, and so can't be published again (discard --save keeps the bytes)"
            }
            Self::OtherLogin => {
                "its client is named by a login that is neither that of amqp.url nor in amqp.trusted_users: where it is a \
                 former login of the worker, or an operator's, add it there, here and for the workers; where a publisher \
                 put the name there himself, have him send it again"
            }
        }
    }
}

/// What is done with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is not meant.
    Other,
    /// It is meant, and stays.
    Left(Obstacle),
    Taken,
}

/// Which letters are meant.
#[derive(Debug)]
pub struct Selection {
    pub action: InterventionKind,
    pub filter: LetterFilter,
    /// As they were given.
    pub ids: Vec<String>,
    /// The letters that they stand for, once that is known.
    pub resolved: Option<BTreeSet<Uuid>>,
    pub include_malformed: bool,
    pub max_body_bytes: u64,
    /// Ages are measured from here.
    pub now: Timestamp,
}

impl Selection {
    pub fn judge(&self, letter: &QueuedMessage, told: &Fragments) -> Judged {
        let named = match &self.resolved {
            Some(letters) => letters.contains(&letter.id),
            None => self.ids.is_empty() || self.ids.iter().any(|id| filter::names(id, letter)),
        };
        if !named || !self.filter.fits(letter, told, self.now) {
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
            // Of a body that was cut, there is nothing to replay, however large a body may be by now.
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

    /// As it is noted.
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

/// The letters that an id may stand for: their ids, and what tells them apart for a person.
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

    /// The one letter; copies of it count as one.
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
                    "{} may stand for several letters; give more of its id:",
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
