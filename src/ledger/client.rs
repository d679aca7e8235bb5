//! Access to the ledger: the pool of connections, and the statement run on one of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::time::timeout;

use super::apply::locks::Locks;
use super::apply::statements::Statements;
use super::connection::connect;
use super::connection::encryption::Encryption;
use super::error::{self, LedgerError, StatementError};
use crate::config::{Policy, Settings};
use crate::domain::decide::DecisionPolicy;

/// Longest that the server works on a statement; after it the batch is tried again.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that a statement's answer is waited for; a connection that is silent for longer is given
/// up.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Longest wait for the server to take a request to cancel a statement.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes a record of no meaning to the log, so that its commit waits for what every commit waits
/// for.
pub(crate) const COMMIT_NOTHING: &str = "SELECT pg_logical_emit_message(true, 'revertd', '')";

/// Batches that are looked up in full after a conflict: each costs a statement, and a line in the
/// server's log.
pub(crate) const CONTENDED_BATCHES: u32 = 100;

/// Connections to the database: open ones, those of them that are free, the most there may be, and
/// how many wait for one.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Connections {
    pub size: usize,
    pub idle: usize,
    pub max: usize,
    pub waiting: usize,
}

/// Requests by identity of the outcome and content.
pub(crate) type WithoutRoom = HashSet<(uuid::Uuid, uuid::Uuid)>;

/// Access to the ledger, shared by the workers of a process.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) pool: Pool,
    pub(crate) encryption: Encryption,
    pub(crate) host: String,
    /// Longest that a statement's answer is waited for; a connection that is silent for longer is
    /// given up.
    pub(crate) answer_timeout: Duration,
    pub(crate) statements: Statements,
    /// Batches that are still to be looked up in full, since another writer was in the way of one.
    pub(crate) contended: Arc<AtomicU32>,
    pub(crate) policy: DecisionPolicy,
    pub(crate) max_age_secs: Option<f64>,
    pub(crate) platform_account: uuid::Uuid,
    /// Whether there is a rung on which a request can wait.
    pub(crate) has_rungs: bool,
    pub(crate) locks: Arc<Locks>,
    /// How long a lock is waited for until it is the request's failure.
    pub(crate) lock_timeout: Duration,
    /// Requests for which there was no room since something was last written: as many as it takes
    /// to tell that there is none at all.
    pub(crate) without_room: Arc<Mutex<WithoutRoom>>,
}

impl Ledger {
    /// Prepares access; connects to nothing yet.
    ///
    /// # Errors
    /// Where `database.url`, or a file of its certificates, can't be understood.
    pub fn new(settings: &Settings) -> Result<Self, LedgerError> {
        let limits = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}",
            STATEMENT_TIMEOUT.as_millis(),
            settings.database.lock_timeout.as_millis()
        );
        Self::within(settings, &limits, ANSWER_TIMEOUT)
    }

    /// With limits for its sessions, as a statement, and for an answer.
    pub(crate) fn within(
        settings: &Settings,
        limits: &str,
        answer_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        let (pool, encryption, host) = connect::pool(settings, limits)?;
        Ok(Self {
            pool,
            encryption,
            host,
            answer_timeout,
            statements: Statements::new(settings),
            contended: Arc::default(),
            policy: DecisionPolicy {
                is_cumulative: settings.revert.policy == Policy::Cumulative,
                needs_grants: settings.needs_grants(),
            },
            max_age_secs: settings.revert.max_age.map(|age| age.as_secs_f64()),
            platform_account: settings.ledger.platform_account,
            has_rungs: !settings.retry.delays.is_empty(),
            locks: Arc::default(),
            lock_timeout: settings.database.lock_timeout,
            without_room: Arc::default(),
        })
    }

    /// Connections to the database at this moment.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let status = self.pool.status();
        Connections {
            size: status.size,
            // Negative where somebody waits.
            idle: status.available.min(status.size),
            max: status.max_size,
            waiting: status.waiting,
        }
    }

    /// Whether the database answers within that time: a question that no table has to answer.
    ///
    /// # Errors
    /// Where it doesn't.
    pub async fn answers(&self, limit: Duration) -> Result<(), LedgerError> {
        let silent = |_| LedgerError::silent(&self.host);
        let client = timeout(limit, self.pool.get()).await.map_err(silent)?;
        let client = client.map_err(|error| error::of_pool(&error, &self.host))?;
        let answered = timeout(limit, client.batch_execute("")).await;
        if !matches!(answered, Ok(Ok(()))) {
            // The pool must not hand it out again.
            drop(Object::take(client));
        }
        answered
            .map_err(silent)?
            .map_err(|error| error::unavailable(&error, &self.host))
    }

    pub(crate) fn without_room(&self) -> MutexGuard<'_, WithoutRoom> {
        // Nothing panics while it holds the lock.
        let without_room = self.without_room.lock();
        without_room.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other writers were in the way of late.
    pub(crate) fn recently_contended(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        let (order, contended) = (Ordering::Relaxed, &self.contended);
        contended.fetch_update(order, order, less).is_ok()
    }

    /// Notes that another writer was in the way.
    pub(crate) fn note_contention(&self) {
        self.contended.store(CONTENDED_BATCHES, Ordering::Relaxed);
    }

    /// Works on a connection of the pool, within a time. One that failed may be dead, within a
    /// transaction, or hold a plan that no longer fits: it is not used again.
    pub(crate) async fn on_connection<T>(
        &self,
        work: impl AsyncFnOnce(&Object) -> Result<T, StatementError>,
    ) -> Result<T, StatementError> {
        let silent = |_| StatementError::Unavailable(LedgerError::silent(&self.host));
        let client = timeout(self.answer_timeout, self.pool.get())
            .await
            .map_err(silent)?;
        let client = client
            .map_err(|error| StatementError::Unavailable(error::of_pool(&error, &self.host)))?;
        let done = timeout(self.answer_timeout, work(&client)).await;
        if let Ok(Err(StatementError::Unavailable(_))) | Err(_) = done {
            let cancel = client.cancel_token();
            drop(Object::take(client));
            if done.is_err() {
                // None of the others is trusted either. What waits on the server, for a standby
                // perhaps, would keep its place there for ever: its answer is never read, so
                // nothing is taken for done.
                self.pool.retain(|_, _| false);
                let cancelling = connect::cancel(cancel, &self.encryption);
                let _ = timeout(CANCEL_TIMEOUT, cancelling).await;
            }
        }
        done.unwrap_or_else(|elapsed| Err(silent(elapsed)))
    }
}
