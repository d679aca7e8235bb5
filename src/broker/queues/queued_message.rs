//! A message of a queue, whether or not lapin can parse it.
//!
//! Its headers are trusted as far as the broker vouches for them: a worker removes `x-death` from
//! messages that it dead-letters, and the broker adds it to those that it dead-letters itself, so a
//! publisher can forge neither.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use crate::broker::consume::envelope::envelope;
use crate::broker::consume::trust::Trust;
use crate::broker::properties;
use crate::broker::raw::wire::frame::Frame;
use crate::domain::request::{BodySummary, digest};

mod unreadable;

use unreadable::Unreadable;

/// The number of body bytes that make up a message's id.
pub const ID_BYTES: u64 = KEPT as u64;
const KEPT: usize = 1 << 20;

/// The reason of a message without a known reason.
const UNKNOWN: &str = "unknown";

/// The reason of a message whose properties cannot be parsed, whatever its `x-death` says.
const UNREADABLE: &str = "unreadable";

/// The origin of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A worker, with a trusted login.
    Worker,
    /// A login that names another client, and is not trusted.
    OtherLogin,
    /// The broker: expired by its publisher, delivered too often, or rejected.
    Broker,
    /// Unknown: its properties can't be parsed.
    Unreadable,
}

/// The failure, as a worker recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The number of the `google.rpc.Code`.
    pub code: Option<i64>,
    /// The message of the failure.
    pub message: String,
}

/// A message of the dead-letter queue or of a rung.
#[derive(Debug)]
pub struct QueuedMessage {
    /// The id: a digest of client, message id and body, so that copies of a request have the same
    /// id.
    pub id: Uuid,
    /// Its origin.
    pub origin: Origin,
    /// The reason: one of the contract's table, or the broker's `expired`, `delivery_limit`,
    /// `rejected`.
    pub reason: String,
    /// The client; empty if the message has no `user_id`.
    pub client: String,
    /// The untrusted login that names the client, if there is one.
    pub claimed_by: Option<String>,
    /// The login that published the message, if the broker authenticated one.
    pub login: Option<String>,
    /// AMQP `message_id`, unless absent or empty.
    pub message_id: Option<String>,
    /// The failure, if a worker recorded it.
    pub noted: Option<Noted>,
    /// The number of attempts, by the worker's header.
    pub attempts: u32,
    /// The time of the first attempt, of the broker's dead-lettering, or of publishing: the first
    /// of these that is known.
    pub since: Option<Timestamp>,
    /// Whether it waits until the login that names its client is trusted.
    pub is_untrusted: bool,
    /// The queue for a copy of the event.
    pub reply_to: Option<String>,
    /// The requested part of the body.
    pub body: Vec<u8>,
    /// The size of the body, in bytes.
    pub body_bytes: u64,
    /// The size of the request's body in bytes, if the worker kept only its beginning.
    pub cut_from: Option<u64>,
    /// The properties as on the wire, after the size of the body.
    pub header: Vec<u8>,
    pub(crate) properties: Option<Box<BasicProperties>>,
    pub(crate) tag: u64,
}

impl QueuedMessage {
    pub(crate) fn read(
        tag: u64,
        header: &Frame,
        body: Vec<u8>,
        body_bytes: u64,
        trust: &Trust,
    ) -> Self {
        let parsed = header.complete().map(parse_frame);
        let properties = match parsed {
            Some(Ok(([], AMQPFrame::Header(_, content)))) => Some(Box::new(content.properties)),
            _ => None,
        };
        let mut letter = match &properties {
            Some(properties) => Self::readable(properties, trust),
            None => Self::unreadable(&unreadable::read(header.payload())),
        };
        letter.id = digest(&[
            b"letter",
            letter.client.as_bytes(),
            letter.message_id.as_deref().unwrap_or_default().as_bytes(),
            &body_bytes.to_be_bytes(),
            &body[..body.len().min(KEPT)],
        ]);
        let header = header.payload().get(12..).unwrap_or_default().to_vec();
        Self {
            body,
            body_bytes,
            header,
            properties,
            tag,
            ..letter
        }
    }

    /// Whether the whole body was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.body.len() as u64 == self.body_bytes
    }

    /// Whether its reason is unknown: neither a worker nor the broker put it into the queue.
    #[must_use]
    pub fn is_unexplained(&self) -> bool {
        self.reason == UNKNOWN
    }

    /// The requests that the first [`ID_BYTES`] of the body show.
    #[must_use]
    pub fn summary(&self) -> BodySummary {
        let body = &self.body[..self.body.len().min(KEPT)];
        BodySummary::of(body, self.message_id.as_deref())
    }

    /// The facts in the properties, without body and tag.
    fn readable(read: &BasicProperties, trust: &Trust) -> Self {
        let header = |name: &str| properties::header(read, name);
        let text = |name: &str| header(name).and_then(properties::text);
        let death = read.headers().as_ref().and_then(last_death);
        let noted = text(properties::ERROR_REASON).filter(|_| death.is_none());
        let envelope = envelope(read, trust, noted.is_some());
        let origin = match (&envelope.claim, &noted) {
            (Some(_), _) => Origin::OtherLogin,
            (None, Some(_)) => Origin::Worker,
            (None, None) => Origin::Broker,
        };
        // A worker records its own chain of logins; a further claim is another login's.
        let is_untrusted = envelope.claim.as_ref().is_some_and(|claim| {
            claim.names.len() > 1 || header(properties::UNTRUSTED_SINCE).is_some()
        });
        // A claimed client is shown, and the id does not depend on the reader's trust. A replay
        // checks the trust.
        let (client, claimed_by) = match envelope.claim.and_then(|mut claim| claim.names.pop()) {
            Some(claimed) => (claimed, Some(envelope.client)),
            None => (envelope.client, None),
        };
        let cut_from = header(properties::BODY_SIZE).filter(|_| noted.is_some());
        let first = text(properties::FIRST_ATTEMPT_AT).filter(|_| death.is_none());
        let first = first.and_then(|text| text.parse().ok());
        let died = death.and_then(|death| seconds(death.inner().get("time")));
        let published = read.timestamp().and_then(of_seconds);
        let why = death.and_then(|death| death.inner().get("reason").and_then(properties::text));
        Self {
            noted: noted.as_ref().map(|_| Noted {
                code: header(properties::ERROR_CODE).and_then(properties::integer),
                message: text(properties::ERROR_MESSAGE).unwrap_or_default(),
            }),
            reason: noted.or(why).unwrap_or_else(|| UNKNOWN.into()),
            origin,
            client,
            claimed_by,
            login: read.user_id().as_ref().map(ToString::to_string),
            message_id: envelope.message_id,
            attempts: envelope.attempts,
            cut_from: cut_from
                .and_then(properties::integer)
                .and_then(|bytes| u64::try_from(bytes).ok()),
            since: first.or(died).or(published),
            is_untrusted,
            reply_to: envelope.reply_to,
            ..Self::blank()
        }
    }

    /// A message whose properties cannot be parsed.
    fn unreadable(read: &Unreadable) -> Self {
        Self {
            reason: UNREADABLE.into(),
            client: read.client.clone().unwrap_or_default(),
            message_id: read.message_id.clone(),
            since: read.seconds.and_then(of_seconds),
            ..Self::blank()
        }
    }

    fn blank() -> Self {
        Self {
            id: Uuid::nil(),
            origin: Origin::Unreadable,
            reason: UNKNOWN.into(),
            client: String::new(),
            claimed_by: None,
            login: None,
            message_id: None,
            noted: None,
            attempts: 0,
            since: None,
            is_untrusted: false,
            reply_to: None,
            body: Vec::new(),
            body_bytes: 0,
            cut_from: None,
            header: Vec::new(),
            properties: None,
            tag: 0,
        }
    }
}

/// The latest of the broker's own notes of why it dead-lettered the message.
fn last_death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else {
        return None;
    };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

fn seconds(value: Option<&AMQPValue>) -> Option<Timestamp> {
    match value? {
        AMQPValue::Timestamp(seconds) => of_seconds(*seconds),
        _ => None,
    }
}

fn of_seconds(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}
