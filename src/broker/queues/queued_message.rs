//! A message that waits in a queue, with what can be told of it, whether or not the client could read it.
//!
//! What it says of itself is believed as far as the broker vouches for it: a worker takes `x-death` off what it
//! dead-letters, and the broker puts one on whatever it dead-letters itself, so a publisher can't pass for either.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use crate::broker::consume::envelope::envelope;
use crate::broker::consume::trust::Trust;
use crate::broker::properties;
use crate::broker::raw::wire::frame::Frame;
use crate::domain::request::{Fragments, digest};

mod unreadable;

use unreadable::Unreadable;

/// How much of a body tells letters apart.
pub const ID_BYTES: u64 = KEPT as u64;
const KEPT: usize = 1 << 20;

/// What is said where nothing says why a message is here.
const UNKNOWN: &str = "unknown";

/// The reason of a message whose properties can't be parsed, whatever its `x-death` would say.
const UNREADABLE: &str = "unreadable";

/// Who wrote a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A worker, under a login that is trusted.
    Worker,
    /// Whoever it was, the client is named by a login that is not trusted to.
    OtherLogin,
    /// The broker: expired by its publisher, delivered too often, or rejected.
    Broker,
    /// The broker, or anybody: its properties can't be read as they are.
    Unreadable,
}

/// What a worker noted of the failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Number of the `google.rpc.Code`.
    pub code: Option<i64>,
    /// One sentence.
    pub message: String,
}

/// A message of the dead-letter queue or of a rung.
#[derive(Debug)]
pub struct QueuedMessage {
    /// Follows from client, message id and body, so that copies of one request have one.
    pub id: Uuid,
    /// Who wrote it.
    pub origin: Origin,
    /// Why it is here: a reason of the contract's table, or the broker's `expired`, `delivery_limit`, `rejected`.
    pub reason: String,
    /// Whose request it is; empty where the broker authenticated nobody.
    pub client: String,
    /// The login by whose word alone it is that client's, where it is not trusted.
    pub claimed_by: Option<String>,
    /// The login that published the letter, where the broker authenticated one.
    pub login: Option<String>,
    /// AMQP `message_id`, unless absent or empty.
    pub message_id: Option<String>,
    /// What went wrong, where a worker wrote it.
    pub noted: Option<Noted>,
    /// Attempts, by our own header.
    pub attempts: u32,
    /// When it was first attempted, dead-lettered by the broker, or published: the first that it tells.
    pub since: Option<Timestamp>,
    /// Whether it waits until the login is trusted that names its client.
    pub is_untrusted: bool,
    /// Where its client wants a copy of the event.
    pub reply_to: Option<String>,
    /// The body, as far as it was asked for.
    pub body: Vec<u8>,
    /// How long the body is.
    pub body_bytes: u64,
    /// How long the request's body was, where the worker kept only its beginning.
    pub cut_from: Option<u64>,
    /// The properties as they stand on the wire, after the size of the body.
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

    /// Whether all of the body was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.body.len() as u64 == self.body_bytes
    }

    /// Whether nothing says why it is here: neither a worker nor the broker put it there.
    #[must_use]
    pub fn is_unexplained(&self) -> bool {
        self.reason == UNKNOWN
    }

    /// What the body tells of its request, as far as it tells letters apart.
    #[must_use]
    pub fn told(&self) -> Fragments {
        Fragments::of(&self.body[..self.body.len().min(KEPT)])
    }

    /// What the properties say, but for the body and the tag.
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
        // A worker wrote what it passes on once, by its own word; a claim on top of that is somebody else's.
        let is_untrusted = envelope.claim.as_ref().is_some_and(|claim| {
            claim.names.len() > 1 || header(properties::UNTRUSTED_SINCE).is_some()
        });
        // What is claimed is shown, and whoever reads the letter, its id is the same. To be believed in a replay takes more.
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

    /// What little is known of a message whose properties can't be parsed.
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
