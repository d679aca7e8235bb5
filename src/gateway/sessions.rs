//! The clients' logins: each asked of the broker, remembered briefly, and bounded.
//!
//! A login is found again by a keyed digest of id and secret, under a key that this process drew at random; the
//! secret itself is kept nowhere.

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

/// How long a login counts: a changed password, or a user that is removed, within this time.
const REMEMBERED: Duration = Duration::from_mins(1);

/// How long a refusal counts: who guesses asks the broker no more often about the same.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(10);

/// Connections that are kept for clients, and refusals that are remembered.
const CLIENTS_MAX: u64 = 500;
const REFUSALS_MAX: u64 = 10_000;

/// How often a client is tried again that was asked about together with an address that must wait.
const TRIES: usize = 3;

/// Logins at a time, and how long one waits for its turn.
const LOGINS_MAX: usize = 16;
const LOGIN_WAIT: Duration = Duration::from_secs(5);

type Digest = [u8; 32];

/// Logins that are remembered.
pub struct Sessions {
    settings: Arc<Settings>,
    metrics: Arc<GatewayMetrics>,
    key: hmac::Key,
    open: Cache<Digest, Arc<ClientConnection>>,
    refused: Cache<Digest, ()>,
    guesses: Arc<Guesses>,
    logins: Arc<Semaphore>,
}

/// Why a client has none.
#[derive(Clone, Debug)]
pub enum NoSession {
    /// Unknown to the broker.
    Refused,
    /// The address sent wrong secrets of this id, and must wait.
    BackOff { source: Source, wait: Duration },
    /// Kept from the virtual host.
    Barred,
    /// Too many log in at present.
    Busy,
    /// The broker can't be asked.
    Unavailable(BrokerError),
}

impl Sessions {
    /// None yet. `None` where the system gives no random numbers.
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

    /// The client's login: the one that is remembered, or a new one, made once however many ask for it.
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

    /// Has a login made, together with whoever asks for the same one.
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
                // It was another address that asked first, and must wait.
                Err(NoSession::BackOff { source: other, .. })
                    if other != source && tries < TRIES => {}
                made => return made,
            }
        }
    }

    /// Lets go of what is no longer remembered: without this, only once somebody asks for something.
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
        // It goes on by itself if its client goes away: what was begun with the broker can't be taken back, and a wrong
        // secret counts.
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

    /// Of the parts, each with its length before it, so that no two pairs are one text.
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
