//! Migrates the schema, and checks that it is up to date.

use std::time::Duration;

use refinery::{Migration, Runner};
use tokio::time::timeout;

use crate::common::backoff::Backoff;
use crate::common::diagnostic::Diagnostic;
use crate::common::failpoint;
use crate::config::Settings;
use crate::ledger::client::ANSWER_TIMEOUT;
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// Every migration of `migrations/`, in order. A released migration is never edited.
pub(crate) const MIGRATIONS: [(&str, &str); 7] = [
    (
        "V1__outcomes",
        include_str!("../../../migrations/V1__outcomes.sql"),
    ),
    (
        "V2__grants",
        include_str!("../../../migrations/V2__grants.sql"),
    ),
    (
        "V3__interventions",
        include_str!("../../../migrations/V3__interventions.sql"),
    ),
    (
        "V4__control",
        include_str!("../../../migrations/V4__control.sql"),
    ),
    (
        "V5__entries_of_others",
        include_str!("../../../migrations/V5__entries_of_others.sql"),
    ),
    (
        "V6__suspects",
        include_str!("../../../migrations/V6__suspects.sql"),
    ),
    (
        "V7__refusals",
        include_str!("../../../migrations/V7__refusals.sql"),
    ),
];

pub(crate) const HISTORY: &str = "revertd.schema_history";

/// Selects the newest applied migration. A later release may have applied it.
pub(crate) const VERSION: &str = "SELECT coalesce(max(version), 0) FROM revertd.schema_history";

/// The only object that revertd adds to Frontier's tables.
const INDEX: &str = "billing_transactions_revertd_idx";

/// Key of the advisory lock that lets only one process migrate: "revertd" in ASCII.
const LOCK: i64 = 0x0072_6576_6572_7464;

/// Longest wait for another process's migration.
const LOCK_TIMEOUT: Duration = Duration::from_mins(10);

/// Longest wait for the release of that lock.
const UNLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the migrations that were applied, and of the index if it was built.
    pub applied: Vec<String>,
}

/// Creates and updates revertd's schema, adds the partial index to Frontier's entries, and, with
/// `ledger.manage = true`, creates Frontier's missing tables. Any number of processes may run it at
/// any time, while workers run.
///
/// # Errors
///
/// If the database cannot be reached, the role lacks a privilege, or Frontier's tables do not fit.
pub async fn migrate(settings: &Settings) -> Result<Migrated, LedgerError> {
    let mut session = Session::open(settings).await?;
    session.lock().await?;
    let result = session.migrate(settings).await;
    // The lock ends with the connection. Releasing it before shortens others' wait.
    let unlock = "SELECT pg_advisory_unlock($1)";
    let _ = timeout(UNLOCK_TIMEOUT, session.client.execute(unlock, &[&LOCK])).await;
    result
}

/// Checks that [`migrate`] has nothing to do.
///
/// # Errors
///
/// If something is missing. The message names it and `revertd migrate`, which adds it.
pub async fn check(settings: &Settings) -> Result<(), LedgerError> {
    let session = Session::open(settings).await?;
    session.check(settings).await
}

impl Session {
    /// Polls instead of waiting in the server: a waiting statement holds a snapshot, and `CREATE
    /// INDEX CONCURRENTLY` of the process that has the lock would wait for that for ever.
    async fn lock(&self) -> Result<(), LedgerError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
        loop {
            let asked = self
                .client
                .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]);
            if self.answered(asked).await?.get(0) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                let text = "another process has been migrating this database for ten minutes";
                let problem = Diagnostic::new(text);
                return Err(LedgerError::permanent(
                    problem.remedy("find it by its advisory lock in pg_locks"),
                ));
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn migrate(&mut self, settings: &Settings) -> Result<Migrated, LedgerError> {
        // The privilege to create the schema is only needed if the schema is missing.
        if !self
            .exists("SELECT FROM pg_namespace WHERE nspname = 'revertd'")
            .await?
        {
            self.execute("CREATE SCHEMA IF NOT EXISTS revertd").await?;
        }
        if settings.ledger.manage {
            self.create_frontier_tables(settings).await?;
        }
        self.check_frontier_tables(settings).await?;
        failpoint::hit(failpoint::MIGRATING);
        let mut runner = Runner::new(&migrations());
        runner.set_migration_table_name(HISTORY);
        // A later release may have applied migrations that this one does not know.
        let runner = runner.set_abort_missing(false).set_abort_divergent(true);
        let report = if self.is_current().await? {
            let run = timeout(ANSWER_TIMEOUT, runner.run_async(&mut self.client)).await;
            run.map_err(|_| LedgerError::silent(&self.host))?
        } else {
            runner.run_async(&mut self.client).await
        };
        let report = report.map_err(|error| self.refinery(&error))?;
        let applied = report.applied_migrations().iter().map(ToString::to_string);
        let mut applied: Vec<_> = applied.collect();
        failpoint::hit(failpoint::MIGRATING);
        if self.create_index(settings).await? {
            applied.push(INDEX.into());
        }
        Ok(Migrated { applied })
    }

    /// Builds the index if it is missing, without blocking Frontier's writers. An index that was
    /// left half-built is invalid, and is dropped first. Returns whether it was built.
    async fn create_index(&self, settings: &Settings) -> Result<bool, LedgerError> {
        if self.index_is_valid(settings).await? {
            return Ok(false);
        }
        let drop = "DROP INDEX CONCURRENTLY IF EXISTS {ledger}.billing_transactions_revertd_idx";
        self.execute(&in_schema(drop, settings)).await?;
        let index = in_schema(include_str!("index.sql"), settings);
        failpoint::hit_during(failpoint::MIGRATING, self.execute(&index)).await?;
        Ok(true)
    }

    pub(crate) async fn index_is_valid(&self, settings: &Settings) -> Result<bool, LedgerError> {
        let schema = settings.ledger.schema.as_str();
        self.exists(&format!(
            "SELECT FROM pg_index WHERE indisvalid AND indexrelid = \
             to_regclass('\"{schema}\".billing_transactions_revertd_idx')"
        ))
        .await
    }

    async fn check(&self, settings: &Settings) -> Result<(), LedgerError> {
        let missing = |message: String| {
            let problem = Diagnostic::new(message);
            Err(LedgerError::permanent(
                problem.remedy("run `revertd migrate`"),
            ))
        };
        self.check_frontier_tables(settings).await?;
        if !self.has_history().await? {
            return missing("the database has no schema revertd".into());
        }
        if !self.is_current().await? {
            let latest = latest();
            return missing(format!("the schema revertd is older than version {latest}"));
        }
        if !self.index_is_valid(settings).await? {
            return missing(
                "the index billing_transactions_revertd_idx is missing or invalid".into(),
            );
        }
        Ok(())
    }

    pub(crate) async fn has_history(&self) -> Result<bool, LedgerError> {
        let table = format!("SELECT WHERE to_regclass('{HISTORY}') IS NOT NULL");
        self.exists(&table).await
    }

    /// Whether the latest migration was applied.
    pub(crate) async fn is_current(&self) -> Result<bool, LedgerError> {
        let applied = format!("SELECT FROM {HISTORY} WHERE version = {}", latest());
        Ok(self.has_history().await? && self.exists(&applied).await?)
    }

    fn refinery(&self, error: &refinery::Error) -> LedgerError {
        match error.kind() {
            refinery::error::Kind::Connection(_, cause) => {
                match cause.downcast_ref::<tokio_postgres::Error>() {
                    Some(cause) => self.classify(cause),
                    None => LedgerError::permanent(format!("the migration failed: {cause}")),
                }
            }
            _ => LedgerError::permanent(format!("the migration failed: {error}")),
        }
    }
}

pub(crate) fn latest() -> i32 {
    migrations().last().map_or(0, Migration::version)
}

pub(crate) fn migrations() -> Vec<Migration> {
    MIGRATIONS
        .iter()
        .map(|(name, sql)| {
            Migration::unapplied(name, sql).expect("the names above have refinery's form")
        })
        .collect()
}

#[cfg(test)]
mod tests;
