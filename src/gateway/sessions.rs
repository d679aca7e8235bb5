//! The clients' logins. The broker checks each; they are remembered for a minute, and bounded in
//! number.
//!
//! The key of a remembered login is an HMAC of id and secret under a random key of this process.
//! This module does not store the secret.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::guesses::Guesses;
use super::metrics::GatewayMetrics;
use crate::broker::{BrokerError, ClientConnection, ClientConnectionError, Credentials};
use crate::common::http_server::Source;
use crate::config::Settings;
use crate::telemetry::LoginRefusal;

/// How long a login is remembered. A changed password or a removed user takes effect within this
/// time.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How long a refusal is remembered: within this time, a repeated pair of id and secret does not
/// reach the broker.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(10);

/// Most connections that are kept for clients, and most refusals that are remembered.
const CLIENTS_MAX: u64 = 500;
const REFUSALS_MAX: u64 = 10_000;

/// Most tries of a login that another address began and had to wait for.
const TRIES: usize = 3;

/// Most logins at a time, and how long a login waits for its turn.
const LOGINS_MAX: usize = 16;
const LOGIN_WAIT: Duration = Duration::from_secs(5);

type Digest = [u8; 32];

/// Remembered logins and refusals.
pub struct Sessions {
    settings: Arc<Settings>,
    metrics: Arc<GatewayMetrics>,
    key: hmac::Key,
    open: Cache<Digest, Arc<ClientConnection>>,
    refused: Cache<Digest, ()>,
    guesses: Arc<Guesses>,
    logins: Arc<Semaphore>,
}

/// Why a client has no login.
#[derive(Clone, Debug)]
pub enum NoSession {
    /// The broker refuses this id and secret.
    Refused,
    /// The address sent wrong secrets of this id, and must wait.
    BackOff { source: Source, wait: Duration },
    /// The broker denies the client the virtual host.
    Barred,
    /// Too many clients are logging in at present.
    Busy,
    /// The broker is not available.
    Unavailable(BrokerError),
}

impl Sessions {
    /// Remembers no login yet. Returns `None` if the system gives no random numbers.
    pub fn new(settings: Arc<Settings>, metrics: Arc<GatewayMetrics>) -> Option<Self> {
        Some(Self {
            settings,
            metrics,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?,
            open: Cache::builder()
                .max_capacity(CLIENTS_MAX)
                .time_to_live(REMEMBERED)
                .build(),
            refused: Cache::builder()
                .max_capacity(REFUSALS_MAX)
                .time_to_live(REFUSAL_REMEMBERED)
                .build(),
            guesses: Arc::new(Guesses::new()),
            logins: Arc::new(Semaphore::new(LOGINS_MAX)),
        })
    }

    /// The client's login: the remembered one, or a new one. Concurrent requests of a client share
    /// one new login.
    pub async fn of(
        &self,
        credentials: &Credentials,
        source: Source,
    ) -> Result<Arc<ClientConnection>, NoSession> {
        let digest = self.digest(credentials);
        if self.refused.contains_key(&digest) {
            self.metrics.logins.refused(LoginRefusal::Repeated);
            return Err(NoSession::Refused);
        }
        if let Some(login) = self.open.get(&digest).await {
            if login.is_open() {
                return Ok(login);
            }
            self.open.invalidate(&digest).await;
        }
        let made = self.once(digest, credentials, source).await;
        if let Err(NoSession::BackOff { .. }) = made {
            self.metrics.logins.refused(LoginRefusal::BackOff);
            self.guesses.refused(source, true);
        }
        made.inspect_err(|error| debug!(client = credentials.id, ?error, "no login"))
    }

    /// Opens a login once for all concurrent requests with the same id and secret.
    async fn once(
        &self,
        digest: Digest,
        credentials: &Credentials,
        source: Source,
    ) -> Result<Arc<ClientConnection>, NoSession> {
        let mut tries = 0;
        loop {
            if let Some(wait) = self.guesses.wait(&credentials.id, source).await {
                return Err(NoSession::BackOff { source, wait });
            }
            tries += 1;
            let making = self.make(credentials, source);
            let made = self.open.try_get_with(digest, making).await;
            match made.map_err(|error| error.as_ref().clone()) {
                // Another address began this login, and must wait; try again for this address.
                Err(NoSession::BackOff { source: other, .. })
                    if other != source && tries < TRIES => {}
                made => return made,
            }
        }
    }

    /// Removes expired entries; otherwise the caches remove them only when they are used.
    pub async fn tidy(&self) {
        self.open.run_pending_tasks().await;
        self.refused.run_pending_tasks().await;
        self.guesses.tidy().await;
    }

    /// Closes the connections.
    pub async fn close(&self) {
        let logins = self.open.iter().map(|(_, login)| login);
        let closing = logins.map(|login| async move { login.close().await });
        futures_util::future::join_all(closing).await;
        self.open.invalidate_all();
    }

    async fn make(
        &self,
        credentials: &Credentials,
        source: Source,
    ) -> Result<Arc<ClientConnection>, NoSession> {
        let turn = self.logins.clone().acquire_owned();
        let Ok(Ok(turn)) = timeout(LOGIN_WAIT, turn).await else {
            return Err(NoSession::Busy);
        };
        let begun = self.guesses.begin(&credentials.id, source).await;
        begun.map_err(|wait| NoSession::BackOff { source, wait })?;
        let (settings, credentials) = (self.settings.clone(), credentials.clone());
        let digest = self.digest(&credentials);
        let (guesses, metrics, refused) = (
            self.guesses.clone(),
            self.metrics.clone(),
            self.refused.clone(),
        );
        // A task of its own, so that the login goes on if its client disconnects: a login that has
        // begun can't be cancelled, and a wrong secret must count.
        let login = tokio::spawn(async move {
            let id = credentials.id.clone();
            let login = ClientConnection::open(&settings, credentials).await;
            drop(turn);
            match login {
                Ok(login) => {
                    guesses.right(&id, source).await;
                    Ok(Arc::new(login))
                }
                Err(ClientConnectionError::Refused(_)) => {
                    metrics.logins.refused(LoginRefusal::WrongSecret);
                    guesses.refused(source, false);
                    refused.insert(digest, ()).await;
                    Err(NoSession::Refused)
                }
                Err(ClientConnectionError::Barred(_)) => {
                    metrics.logins.refused(LoginRefusal::VirtualHost);
                    guesses.right(&id, source).await;
                    Err(NoSession::Barred)
                }
                Err(ClientConnectionError::Unavailable(error)) => {
                    guesses.undecided(&id, source).await;
                    Err(NoSession::Unavailable(error))
                }
            }
        });
        login.await.unwrap_or(Err(NoSession::Busy))
    }

    /// The digest of id and secret. The length of each precedes it, so that two different pairs
    /// never have the same input.
    fn digest(&self, credentials: &Credentials) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [credentials.id.as_bytes(), credentials.secret.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}
