//! Connections to the broker: two that the workers of a process share, and single ones for
//! commands.
//!
//! lapin's recovery stays off: after a recovery, an acknowledgement can settle a message that was
//! never handled. A connection that fails is closed with all its channels, and the worker opens new
//! ones.

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

/// The longest wait for a connection, a channel or a declaration.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for a confirm. A broker that is out of memory or disk stops reading, and
/// reports it only to connections that publish.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest wait for a close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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

    /// Declares the topology, or checks it if `topology.declare = false`. Returns whether the
    /// request exchange has its alternate exchange.
    ///
    /// # Errors
    /// The queue or exchange that is missing or has other arguments.
    pub async fn ensure_topology(&self, settings: &Settings) -> Result<Alternate, BrokerError> {
        topology::ensure(&self.publishing.connection, settings, &self.host).await
    }

    /// Starts to consume the work queue.
    ///
    /// # Errors
    /// If the broker refuses.
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
                return BrokerError::classify(&error, &self.host, "keeping a connection");
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

pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
}

/// Tries the addresses one after another, beginning with a random one, so that a fleet spreads over
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

/// Whether the server sends the first frame of a connection, which is closed then.
pub(crate) async fn greeting(url: &AmqpUrl) -> Result<(), BrokerError> {
    let greeting = async {
        let mut stream = socket::open(url).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let greeted = greeting.await.map(|_| ());
    greeted.map_err(|error| BrokerError::classify(&error.into(), &url.host(), "connecting"))
}

/// Connects once, with the login of `url`. The broker shows `name` to its operators.
pub(crate) async fn connect(url: &AmqpUrl, name: &str) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    log_in(url, parsed(url)?, properties, Inbound::plain).await
}

/// Connects as [`connect`] does, for a connection that consumes.
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

/// Connects as [`connect`] does, with another login than that of `url`.
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
        connected.map_err(|error| BrokerError::classify(&error, &host, "connecting"))
    };
    within(CONNECT_TIMEOUT, &host, connecting).await
}

/// The addresses that are reached over a network without TLS.
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
