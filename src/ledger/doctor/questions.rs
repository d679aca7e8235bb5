//! Questions to the database, and checks in place of answers that do not come.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// Nothing is waited for longer than that, a lock included.
pub const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '2s'";

/// Longest wait where the server keeps to no limit: a commit that waits for a standby.
pub const PATIENCE: Duration = Duration::from_secs(12);

impl Session {
    /// The rows that answer a question.
    pub async fn rows(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        self.answered(self.client.query(query, values)).await
    }
}

/// Where it could not be asked: as a check of that id.
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

/// The same with the schema of Frontier's tables put in.
pub async fn in_ledger(
    session: &Session,
    settings: &Settings,
    query: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, LedgerError> {
    session.rows(&in_schema(query, settings), values).await
}
