//! A row that the statement `apply` returns.

use jiff::Timestamp;
use tokio_postgres::Error;
use uuid::Uuid;

use super::metadata::StoredMetadata;
use crate::domain::outcome::{Decision, Entry, Failure, Outcome, Refusal, Verdict};

/// What a row says of a request: under which identity and content, and what was decided.
pub type RowResult = ((Uuid, Uuid), Decision);

/// Reads a row of the statement. One whose request is known, and the rest of which can't be read,
/// is that request's failure: the others of its batch are decided.
pub fn answer(row: &tokio_postgres::Row) -> Result<RowResult, Error> {
    let key = (row.try_get(0)?, row.try_get(1)?);
    let decision = DecidedRow::read(row).map_or_else(
        |error| {
            let text = format!("what is stored of it can't be read: {error}");
            Decision::Failed(Failure::RetriesExhausted(text))
        },
        DecidedRow::decision,
    );
    Ok((key, decision))
}

/// One decided request.
pub struct DecidedRow {
    /// With [`Outcome::id`], which request it was.
    pub content: Uuid,
    /// Whether it is decided; otherwise the usage may yet come.
    is_final: bool,
    /// Whether it was decided before, and stored.
    is_stored: bool,
    pub outcome: Outcome,
}

/// Why a row can't be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRow {
    /// A column is not of its type.
    #[error(transparent)]
    Column(#[from] Error),
    /// A refusal that this version does not know, stored without its code and words.
    #[error("{0}")]
    Refusal(String),
}

impl DecidedRow {
    /// Reads the columns in the order of the statement.
    pub fn read(row: &tokio_postgres::Row) -> Result<Self, UnreadableRow> {
        let reason: Option<&str> = row.try_get(2)?;
        let verdict = if let Some(reason) = reason {
            let metadata = StoredMetadata::read(row.try_get(3)?);
            let words = words(row.try_get(13)?, row.try_get(14)?);
            let refusal = Refusal::of_stored(reason, words, metadata);
            Verdict::Refused(refusal.ok_or_else(|| unknown(reason))?)
        } else {
            Verdict::Applied(Entry {
                usage_amount: row.try_get(7)?,
                reverted_total: row.try_get(8)?,
                transaction_id: row.try_get(9)?,
                platform_transaction_id: row.try_get(10)?,
            })
        };
        let decided_at: Timestamp = row.try_get(6)?;
        Ok(Self {
            content: row.try_get(1)?,
            is_final: row.try_get(11)?,
            is_stored: row.try_get(12)?,
            outcome: Outcome {
                id: row.try_get(0)?,
                org_id: row.try_get(4)?,
                account_id: row.try_get(5)?,
                decided_at,
                verdict,
            },
        })
    }

    /// What came of the request.
    fn decision(self) -> Decision {
        match (self.is_final, self.is_stored) {
            (false, _) => Decision::NotYet,
            (true, false) => Decision::Decided(self.outcome),
            (true, true) => Decision::Repeated(self.outcome),
        }
    }
}

/// Code and message of a refusal, where both are stored.
pub fn words(code: Option<i32>, message: Option<String>) -> Option<(i32, String)> {
    code.zip(message)
}

fn unknown(reason: &str) -> UnreadableRow {
    UnreadableRow::Refusal(format!(
        "its outcome is stored as {reason}, which this version does not know, and without its \
        words; the version that stored it, or a later one, tells it"
    ))
}
