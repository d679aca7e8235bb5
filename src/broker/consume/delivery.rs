//! A delivered message and its properties.

use std::sync::Arc;

use jiff::Timestamp;
use lapin::BasicProperties;
use uuid::Uuid;

use super::envelope::{envelope, first_attempt, is_replay};
use super::trust::Trust;
use crate::broker::properties;
use crate::broker::raw::inbound::{Arrival, Cut, Held};
use crate::domain::request::{Envelope, Replies};

/// The group in which a request was delivered.
#[derive(Debug)]
pub struct DeliveredGroup {
    /// The `message_id` of the group.
    pub id: String,
    /// The number of its requests.
    pub size: usize,
    /// How its events are sent.
    pub replies: Replies,
    /// The group itself. It holds its share of the bytes in flight.
    pub message: Delivery,
}

/// An unacknowledged message.
#[derive(Debug)]
pub struct Delivery {
    /// The properties that concern the request, checked and bounded.
    pub envelope: Envelope,
    /// The body; if it is too large for a request, only its beginning.
    pub body: Vec<u8>,
    /// Size and digest of the whole body, if `body` is only its beginning.
    pub cut: Option<Cut>,
    /// The number of crashes while the message was tried alone.
    pub crashes: u32,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// Whether `revertd dead-letters replay` published it.
    pub is_replay: bool,
    /// The publisher's timestamp, in whole seconds.
    pub published_at: Option<Timestamp>,
    /// The time of the first attempt, if there was one, by the worker's header.
    pub first_attempt_at: Option<Timestamp>,
    /// Its group, if it is one request of a delivered group.
    pub group: Option<Arc<DeliveredGroup>>,
    pub(crate) properties: BasicProperties,
    pub(crate) tag: u64,
    _held: Option<Held>,
}

impl Delivery {
    /// `trust` decides whose header names the client.
    pub(crate) fn new(
        came: lapin::message::Delivery,
        arrival: Option<(Arrival, Held)>,
        trust: &Trust,
    ) -> Self {
        let (arrival, held) = arrival.unzip();
        Self {
            envelope: envelope(&came.properties, trust, false),
            crashes: 0,
            redelivered: came.redelivered,
            is_replay: is_replay(&came.properties, trust),
            published_at: properties::published_at(&came.properties),
            first_attempt_at: first_attempt(&came.properties, trust),
            group: None,
            body: came.data,
            cut: arrival.and_then(|arrival| arrival.cut),
            properties: came.properties,
            tag: came.delivery_tag,
            _held: held,
        }
    }

    /// A request of this group, as it would be delivered alone. Of the headers it has only those
    /// that revertd reads: a group with many requests must not multiply its publisher's own.
    #[must_use]
    pub fn member(&self, envelope: Envelope, body: Vec<u8>) -> Self {
        let id = envelope.message_id.as_deref().unwrap_or_default();
        Self {
            properties: properties::of_member(&self.properties, id),
            envelope,
            body,
            cut: None,
            crashes: self.crashes,
            redelivered: self.redelivered,
            is_replay: self.is_replay,
            published_at: self.published_at,
            first_attempt_at: self.first_attempt_at,
            group: None,
            tag: self.tag,
            _held: None,
        }
    }

    /// Keeps only the first `max_bytes` of the body, with the size and the digest of the whole.
    pub fn cut_at(&mut self, max_bytes: u64) {
        let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        if self.body.len() > max {
            self.cut.get_or_insert_with(|| Cut::of(&self.body));
            self.body.truncate(max);
        }
    }

    /// Whether both are requests of one delivered group.
    #[must_use]
    pub fn is_grouped_with(&self, other: &Self) -> bool {
        let groups = self.group.as_ref().zip(other.group.as_ref());
        groups.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// The size of the whole body, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.cut.map_or(self.body.len() as u64, |cut| cut.bytes)
    }

    /// The identity of the message: client, message id and body.
    #[must_use]
    pub fn message_identity(&self) -> Uuid {
        match &self.cut {
            None => self.envelope.raw_identity(&self.body),
            Some(cut) => self.envelope.cut_identity(&cut.sha256),
        }
    }
}
