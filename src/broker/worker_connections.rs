//! The two connections to the broker that the workers of a process share.

use std::sync::Arc;

use super::connection::watched::WatchedConnection;
use super::connection::{
    CONNECT_TIMEOUT, any_of, close, connect, connect_consuming, greeting, within,
};
use super::consume::trust::Trust;
use super::error::BrokerError;
use super::operation::Operation;
use super::publish::confirm_channel::Confirms;
use super::publish::publisher::Publisher;
use super::raw::inbound::Flow;
use super::topology::{self, Alternate};
use crate::config::{AmqpUrl, Settings};

/// Two connections to the broker, shared by the workers of a process: where the broker blocks a connection
/// that publishes, nothing at all is written on it, acknowledgements included.
pub struct Broker {
    pub(crate) consuming: WatchedConnection,
    pub(crate) publishing: WatchedConnection,
    /// What is in flight of the first.
    pub(crate) flow: Arc<Flow>,
    /// Those that came on the second.
    confirms: Arc<Confirms>,
    url: AmqpUrl,
    pub(crate) trust: Trust,
    pub(crate) host: String,
}

impl Broker {
    /// Connects, twice. Where it failed before, only once the server has shown that it answers: what the client began
    /// with one that doesn't, threads and sockets, can't be taken back.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses the login or the virtual host.
    pub async fn connect(settings: &Settings, failed: bool) -> Result<Self, BrokerError> {
        let connecting = |url: AmqpUrl| async move {
            if failed {
                let host = url.host();
                within(CONNECT_TIMEOUT, &host, greeting(&url)).await?;
            }
            let amqp = &settings.amqp;
            let (in_flight, body) = (&amqp.max_bytes_in_hand, &amqp.max_message_bytes);
            let flow = Flow::new(in_flight.bytes(), body.bytes());
            let (consuming, publishing) = tokio::try_join!(
                connect_consuming(&url, "revertd worker (consuming)", &flow),
                connect(&url, "revertd worker (publishing)")
            )?;
            Ok(Self {
                trust: Trust::new(&consuming.status().username(), settings),
                consuming: WatchedConnection::new(consuming),
                publishing: WatchedConnection::new(publishing),
                flow,
                confirms: Arc::default(),
                host: url.host(),
                url,
            })
        };
        any_of(&settings.amqp.url, connecting).await
    }

    /// Declares the topology, or checks it with `topology.declare = false`. Says whether requests of any routing key
    /// arrive.
    ///
    /// # Errors
    /// Which queue or exchange is missing, or is there with other arguments.
    pub async fn ensure_topology(&self, settings: &Settings) -> Result<Alternate, BrokerError> {
        topology::ensure(&self.publishing.connection, settings, &self.host).await
    }

    /// Opens a channel to publish on, with confirms.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn publisher(&self) -> Result<Publisher, BrokerError> {
        let (user, confirms) = (self.trust.user(), self.confirms.clone());
        Publisher::open(&self.publishing.connection, user, &self.host, confirms).await
    }

    /// A publisher on a connection of its own, for a command that only publishes. It closes with the outlet.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses.
    pub async fn publisher_of(settings: &Settings, name: &str) -> Result<Publisher, BrokerError> {
        let connecting = async |url: AmqpUrl| {
            let (connection, host) = (connect(&url, name).await?, url.host());
            let user = connection.status().username().into();
            let publisher = Publisher::open(&connection, &user, &host, Arc::default()).await?;
            Ok(publisher.keeping(connection))
        };
        any_of(&settings.amqp.url, connecting).await
    }

    /// Opens a connection of its own to publish on, for what may make the broker close it.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn separate_publisher(&self) -> Result<Publisher, BrokerError> {
        let connection = connect(&self.url, "revertd worker (direct reply-to)").await?;
        let (user, confirms) = (self.trust.user(), Arc::default());
        let publisher = Publisher::open(&connection, user, &self.host, confirms).await?;
        Ok(publisher.keeping(connection))
    }

    /// Returns once the broker blocks publishers, which it says only to who publishes.
    pub async fn blocked(&self) -> BrokerError {
        BrokerError::blocked(&self.host, &self.publishing.blocked().await)
    }

    /// After [`Broker::blocked`], returns once the broker takes messages again, or the connection is gone. Until
    /// then the connection is kept: one that is blocked can't be closed either, and each try would leave another.
    pub async fn unblocked(&self) {
        self.publishing.unblocked().await;
    }

    /// Closes the connection that consumes; what is unacknowledged goes back to the queue.
    pub async fn stop_consuming(&self) {
        close(&self.consuming.connection).await;
    }

    /// What ended a connection, where `wrong` only says that it has ended: a channel can't tell more.
    pub async fn cause(&self, error: BrokerError) -> BrokerError {
        if error.is_permanent() {
            return error;
        }
        for watched in [&self.consuming, &self.publishing] {
            if let Some(error) = watched.error().await {
                return BrokerError::classify(&error, &self.host, Operation::KeepingConnection);
            }
        }
        error
    }

    /// Closes the connections; what is unacknowledged goes back to the queue.
    pub async fn close(&self) {
        tokio::join!(
            close(&self.consuming.connection),
            close(&self.publishing.connection)
        );
    }
}
