//! A batch through the statement: once, and again for what a concurrent writer decided meanwhile.

use super::params::{Lookup, distinct, find};
use super::split::Split;
use crate::domain::outcome::{Decision, Failure};
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::LedgerError;

/// Rounds that decide nothing, for requests that a concurrent writer left undecided. One is the
/// rule under contention; each further one needs another writer to be in the way again.
pub(crate) const ROUNDS: usize = 16;

impl Ledger {
    /// Decides `requests`, in their order, and writes what is decided. Answers each, in the same
    /// order; requests that are one request get one answer.
    ///
    /// # Errors
    /// Where the database can't work at present; then some requests may be decided all the same,
    /// and asking again answers them from what is stored.
    pub async fn apply(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        let mut pending = distinct(requests);
        let mut split = Split::new(self, pending.len());
        let (mut round, mut in_vain) = (0, 0);
        while !pending.is_empty() && in_vain < ROUNDS {
            let lookup = Lookup::from(round > 0 || self.recently_contended());
            split.run(&pending, lookup).await?;
            let asked = pending.len();
            pending.retain(|pending| find(&split.decided, pending.request).is_none());
            round += 1;
            in_vain += usize::from(pending.len() == asked);
        }
        let decided = split.finish();
        let undecided = || {
            Decision::Failed(Failure::Unavailable(
                "other writers, or other requests under its message_id, were decided first time \
                and again"
                    .into(),
            ))
        };
        Ok(requests
            .iter()
            .map(|request| find(&decided, request).cloned().unwrap_or_else(undecided))
            .collect())
    }
}
