//! Reads stored outcomes in the order of their decision. An outcome and the stored fields of its
//! request determine the event.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::config::Settings;
use crate::domain::outcome::Outcome;
use crate::domain::request::{Amount, Fields, RevertRequest};
use crate::ledger::apply::stored_outcome::{UnreadableRow, outcome};
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// The caller decides how fast it reads, so statements and the transaction have no timeout. One
/// snapshot is read to its end.
const SESSION: &str = "
    SET statement_timeout = 0;
    SET lock_timeout = '15s';
    SET idle_in_transaction_session_timeout = 0;
    SET jit = off;
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
";

/// The filter, with $1 to $5 in each statement.
const CHOSEN: &str = "FROM revertd.outcomes o
    WHERE ($1::timestamptz IS NULL OR o.decided_at >= $1)
        AND ($2::timestamptz IS NULL OR o.decided_at < $2)
        AND ($3::text IS NULL OR o.client = $3) AND ($4::uuid IS NULL OR o.org_id = $4)
        AND ($5::text IS NULL OR o.message_id = $5)";

/// The columns of a decided row, and those of its request.
const COLUMNS: &str =
    "o.id, o.content, o.refusal, o.refusal_metadata, o.org_id, o.account_id, o.decided_at,
    o.usage_amount, o.reverted_before + o.amount, o.transaction_id, o.platform_transaction_id,
    o.refusal_code, o.refusal_message, o.usage_id, o.amount, o.client, o.message_id, o.reason";

/// A filter of outcomes. Without any field it matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeFilter {
    /// Decided at this time or later.
    pub since: Option<Timestamp>,
    /// Decided before this time.
    pub until: Option<Timestamp>,
    /// Of this client's requests.
    pub client: Option<String>,
    /// Of this org's accounts.
    pub org: Option<Uuid>,
    /// Of requests with this message id.
    pub message_id: Option<String>,
}

impl OutcomeFilter {
    fn params(&self) -> [&(dyn ToSql + Sync); 5] {
        [
            &self.since,
            &self.until,
            &self.client,
            &self.org,
            &self.message_id,
        ]
    }
}

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeCount {
    /// Applied reverts.
    pub applied: i64,
    /// Refusals.
    pub refused: i64,
}

/// An outcome and the stored fields of its request. The request's reference to its account is not
/// stored, and the event does not contain it either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The request.
    pub request: RevertRequest,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcomes of one snapshot, read in steps.
pub struct Outcomes {
    session: Session,
    filter: OutcomeFilter,
}

impl Outcomes {
    /// Opens a snapshot of the outcomes that match the filter.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached.
    pub async fn open(settings: &Settings, filter: OutcomeFilter) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        session.execute(SESSION).await?;
        Ok(Self { session, filter })
    }

    /// Counts the outcomes.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read the outcomes.
    pub async fn count(&self) -> Result<OutcomeCount, LedgerError> {
        let statement =
            format!("SELECT count(*) FILTER (WHERE o.refusal IS NULL), count(o.refusal) {CHOSEN}");
        let params = self.filter.params();
        let row = self.session.client.query_one(&statement, &params).await;
        let row = row.map_err(|error| self.session.classify(&error))?;
        Ok(OutcomeCount {
            applied: row.get(0),
            refused: row.get(1),
        })
    }

    /// Opens a cursor, the earliest outcome first. The server sorts them, in files if they exceed
    /// its memory.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read the outcomes.
    pub async fn begin(&self) -> Result<(), LedgerError> {
        let statement = format!(
            "DECLARE outcomes NO SCROLL CURSOR FOR SELECT {COLUMNS} {CHOSEN} \
             ORDER BY o.decided_at, o.id"
        );
        let params = self.filter.params();
        let begun = self.session.client.execute(&statement, &params).await;
        begun.map_err(|error| self.session.classify(&error))?;
        Ok(())
    }

    /// The next outcomes, at most `max`; empty at the end. An element is `None` if this version
    /// cannot build the event of the outcome.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn next(&self, max: u32) -> Result<Vec<Option<Stored>>, LedgerError> {
        let fetch = format!("FETCH {max} FROM outcomes");
        let classify = |error| self.session.classify(&error);
        let rows = self
            .session
            .client
            .query(&fetch, &[])
            .await
            .map_err(classify)?;
        let read = |row| match read(row) {
            Ok(stored) => Ok(Some(stored)),
            Err(UnreadableRow::Refusal(_)) => Ok(None),
            Err(UnreadableRow::Column(error)) => Err(classify(error)),
        };
        rows.iter().map(read).collect()
    }
}

fn read(row: &tokio_postgres::Row) -> Result<Stored, UnreadableRow> {
    let outcome = outcome(row)?;
    let amount = Amount::new(row.try_get(14)?);
    let fields = Fields {
        usage_id: row.try_get(13)?,
        amount: amount.expect("outcomes_amount_positive"),
        billing_id: None,
        org_id: None,
        project_id: None,
        reason: row.try_get(17)?,
    };
    let request = RevertRequest {
        id: outcome.id,
        reuse_id: outcome.id,
        content: row.try_get(1)?,
        client: row.try_get(15)?,
        message_id: row.try_get(16)?,
        fields,
        last_attempt: true,
        member: None,
    };
    Ok(Stored { request, outcome })
}
