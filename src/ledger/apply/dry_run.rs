//! What requests would come to: the statement itself, run and taken back.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::Object;

use super::batch::ROUNDS;
use super::params::{Decided, Lookup, Params, Pending, distinct, find};
use crate::common::backoff::Backoff;
use crate::domain::outcome::{Decision, Failure};
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::{LedgerError, StatementError, classify};

/// Tries beside writers that are in the way.
const TRIES: usize = 8;

impl Ledger {
    /// What [`Ledger::apply`] would answer to `requests` at this moment, in their order, each
    /// seeing those before it. Writes nothing; concurrent writers on the same usages wait for it,
    /// some milliseconds.
    ///
    /// # Errors
    /// Where the database can't work at present, or the role may not write.
    pub async fn try_out(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));
        let mut trials = Vec::with_capacity(requests.len());
        let mut parts = vec![requests];
        let mut tries = 0;
        while let Some(part) = parts.pop() {
            let failure = match self
                .on_connection(async |client| self.run_back(client, part).await)
                .await
            {
                Ok(done) => {
                    trials.extend(done);
                    continue;
                }
                Err(StatementError::Unavailable(error)) => return Err(error),
                Err(StatementError::Contended(_)) if tries < TRIES => {
                    tries += 1;
                    parts.push(part);
                    tokio::time::sleep(backoff.next_wait()).await;
                    continue;
                }
                Err(StatementError::Contended(text)) => Failure::Unavailable(text),
                Err(StatementError::Refused(refused)) => {
                    self.probe().await?;
                    refused.failure
                }
            };
            if part.len() > 1 {
                // Only the one that fails is to be told so.
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            } else {
                trials.push(Decision::Failed(failure));
            }
        }
        Ok(trials)
    }

    async fn run_back(
        &self,
        client: &Object,
        requests: &[RevertRequest],
    ) -> Result<Vec<Decision>, StatementError> {
        let classify = |error| classify(&error, &self.host);
        client.batch_execute("BEGIN").await.map_err(classify)?;
        let tried = self.rounds(client, requests).await;
        client.batch_execute("ROLLBACK").await.map_err(classify)?;
        tried
    }

    /// Rounds within one transaction, each of which sees what the one before wrote.
    async fn rounds(
        &self,
        client: &Object,
        requests: &[RevertRequest],
    ) -> Result<Vec<Decision>, StatementError> {
        let mut pending = distinct(requests);
        let mut decided: Decided = HashMap::with_capacity(requests.len());
        for _ in 0..ROUNDS {
            if pending.is_empty() {
                break;
            }
            let params = Params::new(pending.iter().copied());
            decided.extend(self.execute(client, &params, Lookup::Full).await?);
            pending.retain(|pending: &Pending<'_>| find(&decided, pending.request()).is_none());
        }
        let trial = |request| find(&decided, request).cloned().unwrap_or(Decision::NotYet);
        Ok(requests.iter().map(trial).collect())
    }
}
