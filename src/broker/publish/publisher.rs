//! Publishes a worker's messages in windows, and awaits each confirm.

use std::borrow::Cow;
use std::sync::Arc;

use lapin::{BasicProperties, Connection};

use super::confirm_channel::{ConfirmChannel, Confirms, PublishResult};
use super::login::PublishLogin;
use super::message::{Message, Properties};
use super::window::Window;
pub use super::window::{Probe, Probing};
use crate::broker::error::BrokerError;

/// The number of messages whose confirms are awaited together.
const WINDOW: usize = 1000;

/// The results of published messages.
#[derive(Default)]
pub struct Published {
    /// `None`: the message was given up without a confirm, and may be in any of its queues. The
    /// channel must be replaced then: it may be stopped, and a late confirm could take along the
    /// notice of a returned message. Messages that were not published are missing at the end.
    pub results: Vec<Option<PublishResult>>,
    /// The probe whose confirm showed that the broker works.
    pub confirmed_probe: Option<Probe>,
}

/// A channel of the worker or of a command, with the login that publishes on it.
pub struct Publisher {
    channel: ConfirmChannel,
    login: PublishLogin,
    host: String,
    /// Its own connection, if it has one. It closes with the publisher.
    _connection: Option<Connection>,
}

impl Publisher {
    pub(crate) async fn open(
        connection: &Connection,
        user: &Arc<str>,
        host: &str,
        confirms: Arc<Confirms>,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            channel: ConfirmChannel::open(connection, host, confirms).await?,
            login: PublishLogin::new(user.clone(), connection),
            host: host.into(),
            _connection: None,
        })
    }

    /// The login that publishes.
    #[must_use]
    pub fn login(&self) -> &PublishLogin {
        &self.login
    }

    pub(crate) fn keeping(self, connection: Connection) -> Self {
        Self {
            _connection: Some(connection),
            ..self
        }
    }

    /// Publishes `messages` in order, awaits all confirms, and returns the result of each.
    ///
    /// # Errors
    /// If the channel or the connection fails. The results are unknown then: the messages must be
    /// published again, under the same ids.
    pub async fn publish(
        &self,
        messages: &[Message<'_>],
    ) -> Result<Vec<PublishResult>, BrokerError> {
        let published = self.publish_probing(messages, |_| None).await?;
        // Without a probe, every message has a result.
        Ok(published
            .results
            .into_iter()
            .map(|result| result.unwrap_or(PublishResult::Refused))
            .collect())
    }

    /// Publishes `messages`, and tells a silent broker from a silent queue. If no confirm comes for
    /// a while, the message that waits longest and has a `probe` is published to another queue as
    /// well, on another channel, because RabbitMQ stops a channel that publishes to a quorum queue
    /// without an answer. If the probe is confirmed before another message, the broker works, and
    /// the unconfirmed messages are given up.
    ///
    /// # Errors
    /// See [`Publisher::publish`].
    pub async fn publish_probing<'p>(
        &self,
        messages: &[Message<'_>],
        probe: impl Fn(Probe) -> Option<Probing<'p>>,
    ) -> Result<Published, BrokerError> {
        let mut published = Published::default();
        for window in messages.chunks(WINDOW) {
            let before = published.results.len();
            let of_all = |at: Probe| Probe {
                place: before + at.place,
                ..at
            };
            let window = Window::new(&self.channel, &self.login, &self.host, window);
            let confirms = window.publish(&|at| probe(of_all(at))).await?;
            published.results.extend(window.results(&confirms));
            published.confirmed_probe = confirms.confirmed_probe.map(of_all);
            if published.results.contains(&None) {
                break;
            }
        }
        Ok(published)
    }

    /// Whether the broker accepts messages from this login. A broker that is out of memory or disk
    /// space reports it only to a connection that publishes. The probe has no queue, and is
    /// returned.
    ///
    /// # Errors
    /// If it does not.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        let nowhere = format!("revertd.probe.{}", uuid::Uuid::new_v4());
        let probe = Message {
            exchange: "",
            routing_key: Cow::Borrowed(&nowhere),
            properties: Properties::Made(Box::new(
                BasicProperties::default()
                    .with_message_id(nowhere.as_str().into())
                    .with_user_id(self.login.user().into()),
            )),
            body: Cow::Borrowed(b""),
            is_event: false,
            mandatory: true,
        };
        self.publish(&[probe]).await.map(|_| ())
    }
}
