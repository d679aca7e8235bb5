//! Connections to the broker: two of a process, which its workers share, and single ones of
//! commands.
//!
//! Recovery by the client stays off: after it, an acknowledgement can settle a message that was
//! never processed. A connection that fails is given up with all its channels, and the worker
//! builds anew.

use std::sync::Arc;
use std::time::Duration;

use lapin::auth::AuthProvider;
use lapin::uri::{AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::broker::consume::consumer::Consumer;
use crate::broker::consume::trust::Trust;
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::broker::publish::publisher::{Confirms, Publisher};
use crate::broker::raw::inbound::{Flow, Inbound};
use crate::broker::topology::{self, Alternate};
use crate::common::tls;
use crate::config::{AmqpUrl, AmqpUrls, Settings};
use socket::Socket;
use watched::WatchedConnection;

pub(super) mod credentials;
pub(super) mod socket;
pub(super) mod watched;

/// Longest wait for a connection, a channel or a declaration.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the broker to take or confirm messages. A broker that is out of memory or disk
/// stops reading, and says so only to who publishes.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a close that nobody depends on.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Two connections to the broker, shared by the workers of a process: where the broker blocks a
/// connection that publishes, nothing at all is written on it, acknowledgements included.
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
    /// Connects, twice. Where it failed before, only once the server has shown that it answers:
    /// what the client began with one that doesn't, threads and sockets, can't be taken back.
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

    /// Declares the topology, or checks it with `topology.declare = false`. Says whether requests
    /// of any routing key arrive.
    ///
    /// # Errors
    /// Which queue or exchange is missing, or is there with other arguments.
    pub async fn ensure_topology(&self, settings: &Settings) -> Result<Alternate, BrokerError> {
        topology::ensure(&self.publishing.connection, settings, &self.host).await
    }

    /// Starts to consume the work queue.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn consumer(
        self: &Arc<Self>,
        queue: &str,
        prefetch: u16,
    ) -> Result<Consumer, BrokerError> {
        Consumer::open(self.clone(), queue, prefetch).await
    }

    /// Opens a channel to publish on, with confirms.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn publisher(&self) -> Result<Publisher, BrokerError> {
        let (user, confirms) = (self.trust.user(), self.confirms.clone());
        Publisher::open(&self.publishing.connection, user, &self.host, confirms).await
    }

    /// A publisher on a connection of its own, for a command that only publishes. It closes with
    /// the outlet.
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

    /// After [`Broker::blocked`], returns once the broker takes messages again, or the connection
    /// is gone. Until then the connection is kept: one that is blocked can't be closed either, and
    /// each try would leave another.
    pub async fn unblocked(&self) {
        self.publishing.unblocked().await;
    }

    /// Closes the connection that consumes; what is unacknowledged goes back to the queue.
    pub async fn stop_consuming(&self) {
        close(&self.consuming.connection).await;
    }

    /// What ended a connection, where `wrong` only says that it has ended: a channel can't tell
    /// more.
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

pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
}

/// Tries the addresses one after another, from one drawn at random, so that a fleet spreads over
/// the nodes.
pub(crate) async fn any_of<T, F: Future<Output = Result<T, BrokerError>>>(
    urls: &AmqpUrls,
    connecting: impl Fn(AmqpUrl) -> F,
) -> Result<T, BrokerError> {
    let mut error: Option<BrokerError> = None;
    let drawn = uuid::Uuid::new_v4().as_u128() % urls.iter().len() as u128;
    let first = usize::try_from(drawn).expect("less than a length");
    for url in urls.iter().cycle().skip(first).take(urls.iter().len()) {
        match connecting(url.clone()).await {
            Ok(done) => return Ok(done),
            Err(next) => error = Some(error.map_or(next.clone(), |error| error.and(&next))),
        }
    }
    Err(error.expect("the settings name at least one address"))
}

/// Whether the server greets: it sends the first frame of a connection, which ends there.
pub(crate) async fn greeting(url: &AmqpUrl) -> Result<(), BrokerError> {
    let greeting = async {
        let mut stream = socket::open(url).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let greeted = greeting.await.map(|_| ());
    greeted
        .map_err(|error| BrokerError::classify(&error.into(), &url.host(), Operation::Connecting))
}

/// Connects once, with the login of `url`, under a name that the broker's operator sees.
pub(crate) async fn connect(url: &AmqpUrl, name: &str) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    log_in(url, parsed(url)?, properties, Inbound::plain).await
}

/// The same of a connection that consumes.
pub(crate) async fn connect_consuming(
    url: &AmqpUrl,
    name: &str,
    flow: &Arc<Flow>,
) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let inspected = |socket| Inbound::inspected(socket, flow.clone());
    let connection = log_in(url, parsed(url)?, properties, inspected).await?;
    flow.set_frame_max(connection.configuration().frame_max() as usize);
    Ok(connection)
}

/// The same with a login of its own in place of the address's.
pub(crate) async fn connect_as(
    url: &AmqpUrl,
    name: &str,
    login: impl AuthProvider,
) -> Result<Connection, BrokerError> {
    let mut uri = parsed(url)?;
    uri.authority.userinfo = AMQPUserInfo::default();
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_auth_provider(login);
    log_in(url, uri, properties, Inbound::plain).await
}

pub(crate) fn parsed(url: &AmqpUrl) -> Result<AMQPUri, BrokerError> {
    url.secret().parse().map_err(BrokerError::permanent)
}

pub(crate) async fn log_in(
    url: &AmqpUrl,
    uri: AMQPUri,
    properties: ConnectionProperties,
    inbound: impl FnOnce(Socket) -> Inbound,
) -> Result<Connection, BrokerError> {
    let host = url.host();
    let connecting = async {
        let logging_in = async {
            let socket = socket::open(url).await?;
            socket::log_in(uri, inbound(socket), properties).await
        };
        let connected = logging_in.await;
        connected.map_err(|error| BrokerError::classify(&error, &host, Operation::Connecting))
    };
    within(CONNECT_TIMEOUT, &host, connecting).await
}

/// The broker's addresses to which everything goes in the clear, over a network.
#[must_use]
pub fn unencrypted(settings: &Settings) -> Vec<String> {
    let urls = settings.amqp.url.iter();
    let clear = urls.filter(|url| url.tls().is_none() && !tls::is_local(url.address().0));
    clear.map(AmqpUrl::host).collect()
}

pub(crate) async fn within<T>(
    limit: Duration,
    host: &str,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let done = timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(BrokerError::silent(host)))
}
