//! Queries of the checks. A query that fails becomes a failed check.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// Longest that a query runs or waits for a lock.
pub const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '2s'";

/// Longest wait for a commit. The server's limits do not apply while it waits for a standby.
pub const PATIENCE: Duration = Duration::from_secs(12);

impl Session {
    /// The rows of a query.
    pub async fn rows(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        self.answered(self.client.query(query, values)).await
    }
}

/// The answer. `None` if the query failed, which adds a failed check with this id.
pub fn answered<T>(
    id: &'static str,
    answer: Result<T, LedgerError>,
    checks: &mut Checks,
) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            checks.failed(id, error.diagnostic());
            None
        }
    }
}

/// The rows of a query, with the schema of Frontier's tables inserted.
pub async fn in_ledger(
    session: &Session,
    settings: &Settings,
    query: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, LedgerError> {
    session.rows(&in_schema(query, settings), values).await
}
