//! TLS to the database, if its address asks for it. The server is then always verified in full.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::common::tls;
use crate::config::Settings;
use crate::ledger::error::LedgerError;

/// The ALPN protocol that PostgreSQL 17 and later require if TLS comes first
/// (`sslnegotiation=direct`).
const PROTOCOL: &[u8] = b"postgresql";

/// An encrypted connection.
pub type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// The encryption of connections, if it is configured.
#[derive(Clone)]
pub struct Encryption {
    tls: Option<MakeRustlsConnect>,
    /// Whether a TLS handshake has begun, which means that a server agreed to encrypt.
    begun: Arc<AtomicBool>,
}

impl Encryption {
    pub fn new(settings: &Settings) -> Result<Self, LedgerError> {
        let config = settings.database.url.tls().map(tls::config).transpose();
        let config = config.map_err(LedgerError::permanent)?;
        let tls = config.map(|mut config| {
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
            MakeRustlsConnect::new(config)
        });
        let begun = Arc::default();
        Ok(Self { tls, begun })
    }

    pub fn is_on(&self) -> bool {
        self.tls.is_some()
    }

    /// The client's mode. It never lets the server decide.
    pub fn mode(&self) -> SslMode {
        if self.is_on() {
            SslMode::Require
        } else {
            SslMode::Disable
        }
    }

    /// Whether `error` says that the server does not encrypt: it has an untyped cause and arose
    /// before the first handshake.
    pub fn was_declined(&self, error: &tokio_postgres::Error) -> bool {
        let untyped = std::error::Error::source(error)
            .is_some_and(|cause| !cause.is::<io::Error>() && error.as_db_error().is_none());
        self.is_on() && untyped && !self.begun.load(Ordering::Relaxed)
    }
}

impl MakeTlsConnect<Socket> for Encryption {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        let tls = self.tls.as_mut().map(|tls| {
            MakeTlsConnect::<Socket>::make_tls_connect(tls, host).map_err(io::Error::other)
        });
        let (tls, begun) = (tls.transpose()?, self.begun.clone());
        Ok(Handshake { tls, begun })
    }
}

/// The TLS handshake of one connection, after the server has agreed to it.
pub struct Handshake {
    tls: Option<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>,
    begun: Arc<AtomicBool>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        async move {
            match self.tls {
                Some(tls) => tls.connect(socket).await,
                // With SslMode::Disable the client does not ask.
                None => Err(io::ErrorKind::Unsupported.into()),
            }
        }
        .boxed()
    }
}
