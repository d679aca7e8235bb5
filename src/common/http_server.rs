//! An HTTP/1.1 server: it takes connections and serves each until it ends, idles, stalls, or the
//! process stops.
//!
//! The gateway and the telemetry port use it, each with its own limits. It must not know what is
//! asked or answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::common::log_limit::LogLimit;

mod body;
mod protocol;
mod shares;
mod source;

pub use body::{BodyError, BodyLimits, content_length};
pub use protocol::{ProtocolFault, expects_continue};
pub use shares::{Share, Shares};
pub use source::Source;

/// Connections that the system holds until they are taken.
const BACKLOG: u32 = 1024;

/// A pause after the system refused a connection, for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server takes of its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait in the system's queue.
    pub connections: usize,
    /// Connections of one address at a time; further ones are closed at once.
    pub connections_per_source: usize,
    /// Longest wait for the head of a request, and so for the next request on a connection.
    pub head_timeout: Duration,
    /// Largest head of a request.
    pub head_max_bytes: usize,
    /// Longest wait for a client to take some of its answer.
    pub write_timeout: Duration,
    /// Longest wait for a TLS handshake.
    pub handshake_timeout: Duration,
}

impl Limits {
    /// So many connections, and a tenth of them for each address.
    #[must_use]
    pub const fn of(connections: usize) -> Self {
        let seconds = Duration::from_secs(10);
        Self {
            connections,
            connections_per_source: tenth(connections),
            head_timeout: seconds,
            head_max_bytes: 16 * 1024,
            write_timeout: seconds,
            handshake_timeout: seconds,
        }
    }
}

/// The most that one of many clients gets of something: a tenth, and at least one.
#[must_use]
pub const fn tenth(of: usize) -> usize {
    if of < 20 { 1 } else { of / 10 }
}

/// Takes the address, so that no other process can, and doesn't listen yet.
///
/// # Errors
/// The address is not this machine's, or is taken.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Lingering connections of an earlier process do not block the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens from here on.
///
/// # Errors
/// Another process listens there.
pub fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Serves connections.
pub struct Server {
    router: TowerToHyperService<Router>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    /// One that serves `router`, which finds the [`Source`] of a request among its extensions.
    #[must_use]
    pub fn new(
        router: Router,
        tls: Option<TlsAcceptor>,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            tls,
            limits,
            stop,
            tracker: TaskTracker::new(),
        }
    }

    /// Takes connections until told to stop; then returns once all are done, or `limit` later.
    /// Whether they were.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, limit: Duration) -> bool {
        tokio::select! {
            () = self.accept(&listener) => {}
            () = self.stop.cancelled() => {}
        }
        drop(listener);
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.is_ok()
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let shares = Shares::new(self.limits.connections_per_source);
        let closed = LogLimit::default();
        loop {
            let place = places.clone().acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(
                        event = "accept_failed",
                        %error,
                        "the server could not accept a connection; check the limit of open files \
                         (ulimit -n)"
                    );
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let source = Source::from(address.ip());
            let Some(share) = shares.take(source, 1) else {
                if let Some(cases) = closed.note(1) {
                    let share = self.limits.connections_per_source;
                    warn_of_share(listener, address.ip(), cases, share);
                }
                continue;
            };
            let serving = self.clone().connection(stream, source, place, share);
            self.tracker.spawn(serving);
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        source: Source,
        _place: OwnedSemaphorePermit,
        _share: Share<Source>,
    ) {
        // Answers are small and whole; an error only makes them later.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write_timeout));
        let stream = Box::pin(stream);
        let Some(tls) = &self.tls else {
            return self.requests(stream, source).await;
        };
        let handshake = timeout(self.limits.handshake_timeout, tls.accept(stream));
        match self.stop.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.requests(stream, source).await,
            Some(Ok(Err(error))) => debug!(%error, "no TLS handshake"),
            Some(Err(_)) => debug!("no TLS handshake in time"),
            None => {}
        }
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin, source: Source) {
        let router = self.router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(source);
            router.call(request)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(self.limits.head_max_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = self.stop.cancelled() => {
                // The request in work is the last one; without one, the connection closes.
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            debug!(%error, "a connection ended");
        }
    }
}

fn warn_of_share(listener: &TcpListener, address: IpAddr, cases: u64, share: usize) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    warn!(
        event = "connections_closed",
        port,
        %address,
        cases,
        share,
        "the server closed connections at once, because their address holds its share, a tenth of \
         all connections; if the address is a proxy, let it keep fewer connections, or raise \
         gateway.max_in_flight"
    );
}
