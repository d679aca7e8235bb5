//! How a connection to the broker is opened, how long it is waited for, and how it is closed.
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

use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::broker::raw::inbound::{Flow, Inbound};
use crate::common::tls;
use crate::config::{AmqpUrl, AmqpUrls, Settings};
use socket::Socket;

pub(super) mod client;
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
    greeted
        .map_err(|error| BrokerError::classify(&error.into(), &url.host(), Operation::Connecting))
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
            client::log_in(uri, inbound(socket), properties).await
        };
        let connected = logging_in.await;
        connected.map_err(|error| BrokerError::classify(&error, &host, Operation::Connecting))
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
