//! A row of `revertd.outcomes`.

use jiff::Timestamp;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::metadata::StoredMetadata;
use crate::domain::decide::StoredOutcome;
use crate::domain::outcome::{Decision, Entry, Failure, Outcome, Refusal, Verdict};

/// Reads the id and the outcome of a row. If the rest of the row cannot be read, that is the
/// failure of its request alone.
pub(super) fn read(row: &Row) -> Result<(Uuid, StoredOutcome), Error> {
    let (id, content) = (row.try_get(0)?, row.try_get(1)?);
    let decision = outcome(row).map_or_else(
        |error| {
            let text = format!("its stored outcome cannot be read: {error}");
            Decision::Failed(Failure::RetriesExhausted(text))
        },
        Decision::Repeated,
    );
    Ok((id, StoredOutcome { content, decision }))
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRow {
    /// A column does not have its type.
    #[error(transparent)]
    Column(#[from] Error),
    /// A refusal that this version does not know, stored without code and message.
    #[error("{0}")]
    Refusal(String),
}

/// Reads the columns in the order of `outcomes.sql`.
pub fn outcome(row: &Row) -> Result<Outcome, UnreadableRow> {
    let reason: Option<&str> = row.try_get(2)?;
    let verdict = if let Some(reason) = reason {
        let metadata = StoredMetadata::read(row.try_get(3)?);
        let words = words(row.try_get(11)?, row.try_get(12)?);
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
    Ok(Outcome {
        id: row.try_get(0)?,
        org_id: row.try_get(4)?,
        account_id: row.try_get(5)?,
        decided_at,
        verdict,
    })
}

/// Code and message of a refusal, if both are stored.
pub fn words(code: Option<i32>, message: Option<String>) -> Option<(i32, String)> {
    code.zip(message)
}

fn unknown(reason: &str) -> UnreadableRow {
    UnreadableRow::Refusal(format!(
        "its outcome is stored as {reason}, without code and message, and this version of revertd \
         does not know that reason; the version that stored it knows it"
    ))
}
