//! RabbitMQ: connections, topology, deliveries in, messages out.
//!
//! The only room that names the AMQP client. It must not know the database, nor what a message means.
//!
//! Recovery by the client stays off: after it, an acknowledgement can settle a message that was never
//! processed. A connection that fails is given up with all its channels, and the worker builds anew.

use std::sync::Arc;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::settings::Settings;

mod client;
mod error;
mod inlet;
mod message;
mod outlet;
mod properties;
mod topology;

pub use client::{Client, Submission};
pub use error::BrokerError;
pub use inlet::{Delivery, Inlet};
pub use message::Message;
pub use outlet::{Fate, Outlet};

/// Longest wait for a connection, a channel or a declaration.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the broker to take or confirm messages. A broker that is out of memory or disk stops
/// reading, and says so only to who publishes.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a close that nobody depends on.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Two connections to the broker, shared by the workers of a process: where the broker blocks a connection
/// that publishes, nothing at all is written on it, acknowledgements included.
pub struct Broker {
    consuming: Connection,
    publishing: Connection,
    user: Arc<str>,
    host: String,
}

impl Broker {
    /// Connects, twice.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses the login or the virtual host.
    pub async fn connect(settings: &Settings) -> Result<Self, BrokerError> {
        let (consuming, publishing) = tokio::try_join!(
            connect(settings, "revertd worker (consuming)"),
            connect(settings, "revertd worker (publishing)")
        )?;
        Ok(Self {
            user: consuming.status().username().into(),
            consuming,
            publishing,
            host: settings.amqp.url.host(),
        })
    }

    /// Declares the topology, or checks it with `topology.declare = false`.
    ///
    /// # Errors
    /// Which queue or exchange is missing, or is there with other arguments.
    pub async fn ensure_topology(&self, settings: &Settings) -> Result<(), BrokerError> {
        topology::ensure(&self.publishing, settings, &self.host).await
    }

    /// Starts to consume the work queue.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn inlet(&self, queue: &str, prefetch: u16) -> Result<Inlet, BrokerError> {
        let opening = Inlet::open(&self.consuming, queue, prefetch, &self.user, &self.host);
        within(CONNECT_TIMEOUT, &self.host, opening).await
    }

    /// Opens a channel to publish on, with confirms.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn outlet(&self) -> Result<Outlet, BrokerError> {
        let opening = Outlet::open(&self.publishing, &self.user, &self.host);
        within(CONNECT_TIMEOUT, &self.host, opening).await
    }

    /// Closes both connections; what is unacknowledged goes back to the queue.
    pub async fn close(&self) {
        let close = async |connection: &Connection| {
            let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
        };
        tokio::join!(close(&self.consuming), close(&self.publishing));
    }
}

/// Connects once, under a name that the broker's operator sees.
async fn connect(settings: &Settings, name: &str) -> Result<Connection, BrokerError> {
    let host = settings.amqp.url.host();
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = async {
        let connected = Connection::connect(settings.amqp.url.secret(), properties).await;
        connected.map_err(|error| BrokerError::classify(&error, &host, "connecting"))
    };
    within(CONNECT_TIMEOUT, &host, connecting).await
}

async fn within<T>(
    limit: Duration,
    host: &str,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let done = timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(BrokerError::silent(host)))
}
