//! Stored outcomes, read in the order of their time: each, with what is stored of its request, determines its event.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::config::Settings;
use crate::domain::outcome::Outcome;
use crate::domain::request::{Amount, Fields, RevertRequest};
use crate::ledger::apply::row::{Row, UnreadableRow};
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// Whoever reads decides how fast; one moment is read, to its end.
const SESSION: &str = "
    SET statement_timeout = 0;
    SET lock_timeout = '15s';
    SET idle_in_transaction_session_timeout = 0;
    SET jit = off;
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
";

/// Which of them: $1 to $5 of each statement.
const CHOSEN: &str = "FROM revertd.outcomes o
    WHERE ($1::timestamptz IS NULL OR o.decided_at >= $1) AND ($2::timestamptz IS NULL OR o.decided_at < $2)
        AND ($3::text IS NULL OR o.client = $3) AND ($4::uuid IS NULL OR o.org_id = $4)
        AND ($5::text IS NULL OR o.message_id = $5)";

/// The columns that a decided row has, and those of its request.
const COLUMNS: &str =
    "o.id, o.content, o.refusal, o.refusal_metadata, o.org_id, o.account_id, o.decided_at,
    o.usage_amount, o.reverted_before + o.amount, o.transaction_id, o.platform_transaction_id, true, true,
    o.refusal_code, o.refusal_message, o.usage_id, o.amount, o.client, o.message_id, o.reason";

/// Which outcomes are wanted; all where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomeFilter {
    /// Decided then or later.
    pub since: Option<Timestamp>,
    /// Decided before.
    pub until: Option<Timestamp>,
    /// Of this client's requests.
    pub client: Option<String>,
    /// Of this org's accounts.
    pub org: Option<Uuid>,
    /// Of requests of this id.
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

/// How many outcomes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeCount {
    /// Successes.
    pub applied: i64,
    /// Rejections.
    pub refused: i64,
}

/// An outcome, and its request as far as it is stored: how it named the account is not, nor does its event tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The request.
    pub request: RevertRequest,
    /// What became of it.
    pub outcome: Outcome,
}

/// Outcomes of one moment, read by and by.
pub struct Outcomes {
    session: Session,
    filter: OutcomeFilter,
}

impl Outcomes {
    /// Chooses outcomes, as they are stored at this moment.
    ///
    /// # Errors
    /// Where the database can't be reached, or the role may not read.
    pub async fn open(settings: &Settings, filter: OutcomeFilter) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        session.execute(SESSION).await?;
        Ok(Self { session, filter })
    }

    /// How many there are.
    ///
    /// # Errors
    /// Where the database fails, or the role may not read.
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

    /// Begins to read, the earliest first. The server sorts them, and keeps what does not fit its memory in files.
    ///
    /// # Errors
    /// Where the database fails, or the role may not read.
    pub async fn begin(&self) -> Result<(), LedgerError> {
        let statement = format!(
            "DECLARE outcomes NO SCROLL CURSOR FOR SELECT {COLUMNS} {CHOSEN} ORDER BY o.decided_at, o.id"
        );
        let params = self.filter.params();
        let begun = self.session.client.execute(&statement, &params).await;
        begun.map_err(|error| self.session.classify(&error))?;
        Ok(())
    }

    /// The next ones, at most `max`, `None` for each that this version can't tell; none at all at the end.
    ///
    /// # Errors
    /// Where the database fails.
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
    let Row {
        content, outcome, ..
    } = Row::read(row)?;
    let amount = Amount::new(row.try_get(16)?);
    let fields = Fields {
        usage_id: row.try_get(15)?,
        amount: amount.expect("outcomes_amount_positive"),
        billing_id: None,
        org_id: None,
        project_id: None,
        reason: row.try_get(19)?,
    };
    let request = RevertRequest {
        id: outcome.id,
        reuse_id: outcome.id,
        content,
        client: row.try_get(17)?,
        message_id: row.try_get(18)?,
        fields,
        last_attempt: true,
    };
    Ok(Stored { request, outcome })
}
