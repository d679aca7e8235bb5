//! The sockets: connections in, each served until it ends, idles, stalls, or the process stops.
//!
//! It must not know what is asked or answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
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

/// Longest wait for the head of a request, and so for the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a client to take some of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Connections that the system holds until they are taken.
const BACKLOG: u32 = 1024;

/// A pause after the system refused a connection, for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes the address, so that nobody else can, and doesn't listen yet.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Connections of an earlier process that linger keep nobody from the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens from here on.
pub fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Serves connections.
pub struct Server {
    router: TowerToHyperService<Router>,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Server {
    pub fn new(router: Router, tls: Option<TlsAcceptor>, stop: CancellationToken) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            tls,
            stop,
            tracker: TaskTracker::new(),
        }
    }

    /// Takes connections, `max` at a time, until told to stop; then returns once all are done, or `limit` later.
    /// Whether they were.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        max: usize,
        limit: Duration,
    ) -> bool {
        let room = Arc::new(Semaphore::new(max));
        let accepting = async {
            loop {
                let place = room.clone().acquire_owned().await;
                let place = place.expect("nobody closes the semaphore");
                match listener.accept().await {
                    Ok((stream, _)) => {
                        self.tracker.spawn(self.clone().connection(stream, place));
                    }
                    Err(error) => {
                        warn!(%error, "a connection could not be taken; see the limit of open files (ulimit -n)");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = self.stop.cancelled() => {}
        }
        drop(listener);
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.is_ok()
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Answers are small and whole; an error only makes them later.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let Some(tls) = &self.tls else {
            return self.requests(stream).await;
        };
        let handshake = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
        match self.stop.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.requests(stream).await,
            Some(Ok(Err(error))) => debug!(%error, "no TLS handshake"),
            Some(Err(_)) => debug!("no TLS handshake in time"),
            None => {}
        }
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX_BYTES)
            .serve_connection(TokioIo::new(stream), self.router.clone());
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
