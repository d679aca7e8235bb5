//! Bringing the schema up to date, and checking that it is.

use std::time::Duration;

use refinery::{Migration, Runner};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::ANSWER_TIMEOUT;
use super::connect::{in_schema, single};
use super::error::{LedgerError, Trouble, classify};
use crate::patience::Patience;
use crate::seam;
use crate::settings::Settings;

/// Every migration of `migrations/`, in order. A released one is never edited.
const MIGRATIONS: [(&str, &str); 1] = [(
    "V1__outcomes",
    include_str!("../../migrations/V1__outcomes.sql"),
)];

const HISTORY: &str = "revertd.schema_history";

/// The one thing that is added to Frontier's tables.
const INDEX: &str = "billing_transactions_revertd_idx";

/// Key of the advisory lock under which one process at a time migrates: "revertd" in ASCII.
const LOCK: i64 = 0x0072_6576_6572_7464;

/// Longest wait for another process's migration.
const LOCK_TIMEOUT: Duration = Duration::from_mins(10);

/// Longest wait for that lock to be let go of.
const UNLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Frontier's columns that a revert reads or writes, with their types.
const COLUMNS: [(&str, &str, &str); 19] = [
    ("organizations", "id", "uuid"),
    ("organizations", "deleted_at", "timestamptz"),
    ("projects", "id", "uuid"),
    ("projects", "org_id", "uuid"),
    ("projects", "deleted_at", "timestamptz"),
    ("billing_customers", "id", "uuid"),
    ("billing_customers", "org_id", "uuid"),
    ("billing_customers", "state", "text"),
    ("billing_customers", "created_at", "timestamptz"),
    ("billing_customers", "deleted_at", "timestamptz"),
    ("billing_transactions", "id", "uuid"),
    ("billing_transactions", "account_id", "uuid"),
    ("billing_transactions", "type", "text"),
    ("billing_transactions", "source", "text"),
    ("billing_transactions", "amount", "int8"),
    ("billing_transactions", "description", "text"),
    ("billing_transactions", "metadata", "jsonb"),
    ("billing_transactions", "user_id", "text"),
    ("billing_transactions", "created_at", "timestamptz"),
];

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the migrations that were applied now, and of the index if it was built.
    pub applied: Vec<String>,
}

/// Creates and updates revertd's schema, adds the partial index to Frontier's entries, and, with
/// `ledger.manage = true`, creates Frontier's tables where they are missing. Safe to run at any time, by any
/// number of processes, beside running workers.
///
/// # Errors
/// Where the database can't be reached, the role may not, or Frontier's tables do not fit.
pub async fn migrate(settings: &Settings) -> Result<Migrated, LedgerError> {
    let mut session = Session::open(settings).await?;
    session.lock().await?;
    let result = session.migrate(settings).await;
    // The lock goes with the connection; letting go of it first spares others a wait.
    let unlock = "SELECT pg_advisory_unlock($1)";
    let _ = timeout(UNLOCK_TIMEOUT, session.client.execute(unlock, &[&LOCK])).await;
    result
}

/// Checks that [`migrate`] has nothing to do.
///
/// # Errors
/// What is missing, and that `revertd migrate` adds it.
pub async fn check(settings: &Settings) -> Result<(), LedgerError> {
    let session = Session::open(settings).await?;
    session.check(settings).await
}

struct Session {
    client: Client,
    host: String,
}

impl Session {
    async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let (client, host) = single(settings).await?;
        Ok(Self { client, host })
    }

    /// Polls instead of waiting in the server: a waiting statement holds a snapshot, and `CREATE INDEX
    /// CONCURRENTLY` of the process that has the lock would wait for that for ever.
    async fn lock(&self) -> Result<(), LedgerError> {
        let mut patience = Patience::new(Duration::from_millis(50), Duration::from_secs(2));
        let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
        loop {
            let asked = self
                .client
                .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]);
            if self.answered(asked).await?.get(0) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(LedgerError::lasting(
                    "another process has been migrating this database for ten minutes; find it by its \
                     advisory lock in pg_locks",
                ));
            }
            tokio::time::sleep(patience.next_wait()).await;
        }
    }

    async fn migrate(&mut self, settings: &Settings) -> Result<Migrated, LedgerError> {
        // What the role can't create is only asked for where it is missing.
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
        seam::pass(seam::MIGRATING);
        let mut runner = Runner::new(&migrations());
        runner.set_migration_table_name(HISTORY);
        // A newer version of revertd may have been here: its additions are no fault.
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
        seam::pass(seam::MIGRATING);
        if self.create_index(settings).await? {
            applied.push(INDEX.into());
        }
        Ok(Migrated { applied })
    }

    async fn create_frontier_tables(&self, settings: &Settings) -> Result<(), LedgerError> {
        let schema = &settings.ledger.schema;
        let missing = format!(
            "SELECT FROM unnest(ARRAY['organizations', 'projects', 'billing_customers', \
             'billing_transactions']) t WHERE to_regclass('\"{schema}\".' || t) IS NULL"
        );
        if !self.exists(&missing).await? {
            return Ok(());
        }
        self.execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
            .await?;
        if !self
            .exists("SELECT FROM pg_extension WHERE extname = 'uuid-ossp'")
            .await?
        {
            let create =
                format!("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" SCHEMA \"{schema}\"");
            self.execute(&create).await?;
        }
        let home = self.client.query_one(
            "SELECT quote_ident(n.nspname) FROM pg_extension e \
             JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'uuid-ossp'",
            &[],
        );
        let home = self.answered(home).await?;
        let home: String = home.get(0);
        // Its own transaction, so that the search path ends with it.
        self.execute(&format!(
            "BEGIN; SET LOCAL search_path = \"{schema}\", {home}; {} COMMIT",
            include_str!("frontier.sql")
        ))
        .await
    }

    async fn check_frontier_tables(&self, settings: &Settings) -> Result<(), LedgerError> {
        let schema = settings.ledger.schema.as_str();
        let query = "SELECT c.relname::text, a.attname::text, t.typname::text, \
             a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_given \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid \
             WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped";
        let rows = self.answered(self.client.query(query, &[&schema])).await?;
        let mut wrong = Vec::new();
        for (table, column, kind) in COLUMNS {
            let found = rows
                .iter()
                .find(|row| row.get::<_, &str>(0) == table && row.get::<_, &str>(1) == column);
            let found: Option<&str> = found.map(|row| row.get(2));
            match found {
                None => wrong.push(format!("{table}.{column} is missing")),
                Some("varchar") if kind == "text" => {}
                Some(found) if found == kind => {}
                Some(found) => wrong.push(format!("{table}.{column} is {found}, not {kind}")),
            }
        }
        for row in &rows {
            let (table, column): (&str, &str) = (row.get(0), row.get(1));
            let ours = column == "updated_at" || COLUMNS.iter().any(|(_, name, _)| *name == column);
            if table == "billing_transactions" && row.get::<_, bool>(3) && !ours {
                wrong.push(format!(
                    "{table}.{column} must be given, and revertd does not know it"
                ));
            }
        }
        let unique = format!(
            "SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
             AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass('\"{schema}\".billing_transactions') \
             AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = 'id'"
        );
        if wrong.is_empty() && !self.exists(&unique).await? {
            wrong.push("billing_transactions.id has no unique index".into());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let remedy = if rows.is_empty() && !settings.ledger.manage {
            "; is ledger.schema right? With ledger.manage = true, `revertd migrate` creates the tables"
        } else {
            "; revertd needs Frontier's tables as ARCHITECTURE.md lists them, section Ledger"
        };
        let wrong = wrong.join(", ");
        Err(LedgerError::lasting(format!(
            "Frontier's tables in schema {schema} do not fit: {wrong}{remedy}"
        )))
    }

    /// `true` where it had to be. Built without blocking Frontier's writers. One that was left half-built is invalid, and goes first.
    async fn create_index(&self, settings: &Settings) -> Result<bool, LedgerError> {
        if self.index_is_valid(settings).await? {
            return Ok(false);
        }
        let drop = "DROP INDEX CONCURRENTLY IF EXISTS {ledger}.billing_transactions_revertd_idx";
        self.execute(&in_schema(drop, settings)).await?;
        let index = in_schema(include_str!("index.sql"), settings);
        seam::amid(seam::MIGRATING, self.execute(&index)).await?;
        Ok(true)
    }

    async fn index_is_valid(&self, settings: &Settings) -> Result<bool, LedgerError> {
        let schema = settings.ledger.schema.as_str();
        self.exists(&format!(
            "SELECT FROM pg_index WHERE indisvalid AND indexrelid = \
             to_regclass('\"{schema}\".billing_transactions_revertd_idx')"
        ))
        .await
    }

    async fn check(&self, settings: &Settings) -> Result<(), LedgerError> {
        let missing = |what: String| {
            Err(LedgerError::lasting(format!(
                "{what}; run `revertd migrate`"
            )))
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

    async fn has_history(&self) -> Result<bool, LedgerError> {
        let table = format!("SELECT WHERE to_regclass('{HISTORY}') IS NOT NULL");
        self.exists(&table).await
    }

    /// Whether the latest migration was applied.
    async fn is_current(&self) -> Result<bool, LedgerError> {
        let applied = format!("SELECT FROM {HISTORY} WHERE version = {}", latest());
        Ok(self.has_history().await? && self.exists(&applied).await?)
    }

    async fn exists(&self, query: &str) -> Result<bool, LedgerError> {
        Ok(!self
            .answered(self.client.query(query, &[]))
            .await?
            .is_empty())
    }

    /// The answer to a question that is answered at once, if at all. What builds something is waited for
    /// without a bound: nobody knows how long that takes.
    async fn answered<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, LedgerError> {
        let answer = timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| LedgerError::silent(&self.host))?;
        answer.map_err(|error| self.wrong(&error))
    }

    async fn execute(&self, statements: &str) -> Result<(), LedgerError> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &tokio_postgres::Error) -> LedgerError {
        match classify(error, &self.host) {
            Trouble::Unavailable(error) => error,
            Trouble::Contended(text) | Trouble::Rejected(text) => LedgerError::lasting(text),
        }
    }

    fn refinery(&self, error: &refinery::Error) -> LedgerError {
        match error.kind() {
            refinery::error::Kind::Connection(_, cause) => {
                match cause.downcast_ref::<tokio_postgres::Error>() {
                    Some(cause) => self.wrong(cause),
                    None => LedgerError::lasting(format!("the migration failed: {cause}")),
                }
            }
            _ => LedgerError::lasting(format!("the migration failed: {error}")),
        }
    }
}

fn latest() -> i32 {
    migrations().last().map_or(0, Migration::version)
}

fn migrations() -> Vec<Migration> {
    MIGRATIONS
        .iter()
        .map(|(name, sql)| {
            Migration::unapplied(name, sql).expect("the names above have refinery's form")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_migrations_is_embedded_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        files.sort();
        let embedded: Vec<_> = MIGRATIONS
            .iter()
            .map(|(name, _)| format!("{name}.sql"))
            .collect();
        assert_eq!(embedded, files);
        assert_eq!(migrations().len(), files.len());
    }
}
