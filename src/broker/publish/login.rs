//! The login that publishes messages of others again, and the properties that it gives them.

use std::sync::Arc;

use lapin::types::AMQPValue;
use lapin::{BasicProperties, Connection};

use crate::broker::consume::delivery::Delivery;
use crate::broker::properties;
use crate::broker::queues::queued_message::QueuedMessage;

/// Room in a frame for what is not the publisher's own headers.
const FRAME_RESERVE: usize = 8 * 1024;

/// The login of a publisher.
#[derive(Clone, Debug)]
pub struct PublishLogin {
    user: Arc<str>,
    headers_max_bytes: usize,
}

impl PublishLogin {
    pub(super) fn new(user: Arc<str>, connection: &Connection) -> Self {
        let frame_max = connection.configuration().frame_max() as usize;
        Self {
            user,
            headers_max_bytes: frame_max.saturating_sub(FRAME_RESERVE),
        }
    }

    /// The user.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// A delivery's properties as they are published again, without those that make the broker act.
    pub(super) fn passed_on(
        &self,
        delivery: &Delivery,
        added: Vec<(&'static str, AMQPValue)>,
    ) -> BasicProperties {
        let (envelope, max_bytes) = (&delivery.envelope, self.headers_max_bytes);
        let claimed = envelope
            .claim
            .as_ref()
            .map_or(&[][..], |claim| &claim.names);
        let (read, client) = (&delivery.properties, &envelope.client);
        properties::passed_on(read, client, claimed, &self.user, added, max_bytes)
    }

    /// A dead letter's properties as it is published as a request again; `None` if they could not
    /// be parsed.
    pub(super) fn replayed(&self, letter: &QueuedMessage) -> Option<BasicProperties> {
        let (read, client) = (letter.properties.as_ref()?, &letter.client);
        let max_bytes = self.headers_max_bytes;
        Some(properties::replayed(read, client, &self.user, max_bytes))
    }
}
