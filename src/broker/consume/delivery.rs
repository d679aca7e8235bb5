//! A message as it came, and what it says about its request.

use jiff::Timestamp;
use lapin::BasicProperties;
use uuid::Uuid;

use super::envelope::{envelope, first_attempt, is_replay};
use super::trust::Trust;
use crate::broker::properties;
use crate::broker::raw::inbound::{Arrival, Cut, Held};
use crate::domain::request::Envelope;

/// A message, unacknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// What it says about its request, checked and bounded.
    pub envelope: Envelope,
    /// The body, unread; of one that is too large for a request only its beginning.
    pub body: Vec<u8>,
    /// What the whole body was, where only its beginning is there.
    pub cut: Option<Cut>,
    /// How often it crashed the process while nothing else was in work.
    pub crashes: u32,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Whether it is a dead letter that `revertd dead-letters replay` published again.
    pub is_replay: bool,
    /// When its publisher says that it was published, to the second.
    pub published_at: Option<Timestamp>,
    /// When it was first attempted, where that was before: as the worker noted it.
    pub first_attempt_at: Option<Timestamp>,
    pub(crate) properties: BasicProperties,
    pub(crate) tag: u64,
    _held: Option<Held>,
}

impl Delivery {
    /// `trust` tells whose word on the client is believed.
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

    /// Identity of the message: client, message id and body.
    #[must_use]
    pub fn identity(&self) -> Uuid {
        match &self.cut {
            None => self.envelope.raw_identity(&self.body),
            Some(cut) => self.envelope.cut_identity(&cut.sha256),
        }
    }
}
