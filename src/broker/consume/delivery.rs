//! A delivered message and its properties.

use jiff::Timestamp;
use lapin::BasicProperties;
use uuid::Uuid;

use super::envelope::{envelope, first_attempt, is_replay};
use super::trust::Trust;
use crate::broker::properties;
use crate::broker::raw::inbound::{Arrival, Cut, Held};
use crate::domain::request::Envelope;

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
            body: came.data,
            cut: arrival.and_then(|arrival| arrival.cut),
            properties: came.properties,
            tag: came.delivery_tag,
            _held: held,
        }
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
