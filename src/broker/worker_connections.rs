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

/// Two connections to the broker, which the workers of a process share. The broker blocks a
/// connection that publishes, and with it all acknowledgements; so one connection consumes and the
/// other publishes.
pub struct Broker {
    pub(crate) consuming: WatchedConnection,
    pub(crate) publishing: WatchedConnection,
    /// The bytes in flight on the first.
    pub(crate) flow: Arc<Flow>,
    /// The confirms on the second.
    confirms: Arc<Confirms>,
    url: AmqpUrl,
    pub(crate) trust: Trust,
    pub(crate) host: String,
}

impl Broker {
    /// Opens both connections. If the last attempt `failed`, the server must answer a greeting
    /// first: threads and sockets that lapin begins with a silent server can't be stopped.
    ///
    /// # Errors
    /// If the broker can't be reached, or refuses the login or the virtual host.
    pub async fn connect(settings: &Settings, failed: bool) -> Result<Self, BrokerError> {
        let connecting = |url: AmqpUrl| async move {
            if failed {
                let host = url.host();
                within(CONNECT_TIMEOUT, &host, greeting(&url)).await?;
            }
            let amqp = &settings.amqp;
            let (body, _) = amqp.request_limits().largest();
            let flow = Flow::new(amqp.max_bytes_in_hand.bytes(), body);
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

    /// Declares the topology, or checks it if `topology.declare = false`. Returns whether the
    /// request exchange has its alternate exchange.
    ///
    /// # Errors
    /// The queue or exchange that is missing or has other arguments.
    pub async fn ensure_topology(&self, settings: &Settings) -> Result<Alternate, BrokerError> {
        topology::ensure(&self.publishing.connection, settings, &self.host).await
    }

    /// Opens a channel to publish on, with confirms.
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn publisher(&self) -> Result<Publisher, BrokerError> {
        let (user, confirms) = (self.trust.user(), self.confirms.clone());
        Publisher::open(&self.publishing.connection, user, &self.host, confirms).await
    }

    /// Opens a publisher on a connection of its own, for a command that only publishes. The
    /// connection closes with the publisher.
    ///
    /// # Errors
    /// If the broker can't be reached, or refuses.
    pub async fn publisher_of(settings: &Settings, name: &str) -> Result<Publisher, BrokerError> {
        let connecting = async |url: AmqpUrl| {
            let (connection, host) = (connect(&url, name).await?, url.host());
            let user = connection.status().username().into();
            let publisher = Publisher::open(&connection, &user, &host, Arc::default()).await?;
            Ok(publisher.keeping(connection))
        };
        any_of(&settings.amqp.url, connecting).await
    }

    /// Opens a publisher on a connection of its own, for messages that may make the broker close
    /// it.
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn separate_publisher(&self) -> Result<Publisher, BrokerError> {
        let connection = connect(&self.url, "revertd worker (direct reply-to)").await?;
        let (user, confirms) = (self.trust.user(), Arc::default());
        let publisher = Publisher::open(&connection, user, &self.host, confirms).await?;
        Ok(publisher.keeping(connection))
    }

    /// Returns once the broker blocks the publishing connection.
    pub async fn blocked(&self) -> BrokerError {
        BrokerError::blocked(&self.host, &self.publishing.blocked().await)
    }

    /// Returns once the broker unblocks the publishing connection, or the connection ends. Until
    /// then the connection is kept: a blocked connection can't be closed, and each retry would
    /// leave another one.
    pub async fn unblocked(&self) {
        self.publishing.unblocked().await;
    }

    /// Closes the consuming connection. Unacknowledged messages are requeued.
    pub async fn stop_consuming(&self) {
        close(&self.consuming.connection).await;
    }

    /// The cause of a connection's end, if `error` only says that it ended, as a channel's error
    /// does.
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

    /// Closes both connections. Unacknowledged messages are requeued.
    pub async fn close(&self) {
        tokio::join!(
            close(&self.consuming.connection),
            close(&self.publishing.connection)
        );
    }
}
