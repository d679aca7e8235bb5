//! Reads the history of requests: the reverts of their usages, and the outcomes stored under their
//! ids.

use std::collections::HashMap;

use tokio_postgres::types::Json;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::metadata::StoredMetadata;
use super::round::Round;
use super::stored_outcome;
use crate::domain::decide::{EntryKind, History, OwnReverts, Question, Reverts};
use crate::ledger::error::StatementError;

impl Round<'_> {
    /// The history of those requests that `wanted` says.
    ///
    /// The outcomes are read last. A revert that is found was stored together with its outcome, so
    /// the outcome of the same request is found, too, and is its answer.
    pub(super) async fn history(
        &self,
        questions: &[Question<'_>],
        wanted: &[bool],
    ) -> Result<History, StatementError> {
        let asked = || questions.iter().zip(wanted);
        let asked = || asked().filter_map(|(question, wanted)| wanted.then_some(question));
        let usages = self.reverts(asked()).await?;
        let ids: Vec<Uuid> = asked()
            .flat_map(|question| [question.request.id, question.request.reuse_id])
            .collect();
        let rows = self
            .query(&self.ledger.statements.outcomes, &[&ids])
            .await?;
        let outcomes = rows.iter().map(stored_outcome::read);
        let outcomes: Result<_, Error> = outcomes.collect();
        Ok(History {
            outcomes: outcomes.map_err(|error| self.classify(&error))?,
            usages,
        })
    }

    async fn reverts<'q>(
        &self,
        questions: impl Iterator<Item = &'q Question<'q>>,
    ) -> Result<HashMap<Uuid, Reverts>, StatementError> {
        let mut asked: HashMap<Uuid, (Uuid, i32)> = HashMap::new();
        for Question { request, facts, .. } in questions {
            if let (Some(account), Some(usage)) = (&facts.account, &facts.usage)
                && usage.kind == EntryKind::Usage
            {
                let (_, wanted) = asked
                    .entry(request.fields.usage_id)
                    .or_insert((account.id, 0));
                // Only the first request reverts a usage that is reverted once.
                *wanted = if self.ledger.policy.is_cumulative {
                    wanted.saturating_add(1)
                } else {
                    1
                };
            }
        }
        let usages: Vec<Uuid> = asked.keys().copied().collect();
        let (accounts, wanted): (Vec<Uuid>, Vec<i32>) = asked.into_values().unzip();
        let rows = self
            .query(
                &self.ledger.statements.reverts,
                &[&usages, &accounts, &wanted],
            )
            .await?;
        let read: Result<_, Error> = rows.iter().map(read).collect();
        read.map_err(|error| self.classify(&error))
    }
}

/// A usage and its reverts.
fn read(row: &Row) -> Result<(Uuid, Reverts), Error> {
    let last: Option<i32> = row.try_get(1)?;
    let own = match last {
        None => None,
        Some(revert_no) => Some(OwnReverts {
            count: u64::try_from(revert_no).map_or(0, |last| last + 1),
            total: row.try_get(2)?,
            last: metadata(row, 3)?.unwrap_or_default(),
        }),
    };
    let reverts = Reverts {
        own,
        count: row.try_get(4)?,
        total: row.try_get(5)?,
        earliest: metadata(row, 6)?,
        free_numbers: row.try_get(7)?,
    };
    Ok((row.try_get(0)?, reverts))
}

fn metadata(row: &Row, column: usize) -> Result<Option<crate::domain::outcome::Metadata>, Error> {
    let stored: Option<Json<StoredMetadata>> = row.try_get(column)?;
    Ok(stored.map(|stored| StoredMetadata::read(Some(stored))))
}
