//! The AMQP client on a socket that is open.
//!
//! The client would open sockets by itself, but has one TLS for all of a process, which can't be
//! told to trust one authority alone; and where it was built without, it speaks plain text to an
//! amqps address without a word. It is given sockets that are open.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{Stream, TryFutureExt};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::either::Either;

use crate::broker::raw::inbound::Inbound;

/// Logs in over a socket, with the login of `uri`, or of `properties` where they have one.
pub async fn log_in(
    uri: AMQPUri,
    socket: Inbound,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let socket = Mutex::new(Some(socket));
    let hand_over = async move |_, _| {
        let socket = socket.lock().map_or(None, |mut socket| socket.take());
        // Its recovery is off, so that it asks once.
        let socket = socket
            .ok_or(io::ErrorKind::NotConnected)
            .map_err(io::Error::from)?;
        Ok(AsyncTcpStream::Plain(socket.compat()))
    };
    let runtime = Runtime::new(RuntimeParts::new(
        Tokio::current(),
        Sockets(Tokio::current()),
    ));
    // Boxed, as the client's own ways to connect are.
    Box::pin(Connection::connector(uri, runtime, hand_over, properties)).await
}

/// lapin's reactor with another type of socket.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Compat<Inbound>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        TcpStream::connect(address).map_ok(|stream| Inbound::plain(Either::Left(stream)).compat())
    }
}
