//! Decides a batch.

use super::pending::{distinct, key};
use super::split::Split;
use crate::domain::outcome::Decision;
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::LedgerError;

impl Ledger {
    /// Decides `requests`, in their order, and writes the decisions. Returns a decision for each, in
    /// the same order; equal requests get one decision.
    ///
    /// # Errors
    /// If the database cannot work at present. Some requests may be decided nevertheless; when they
    /// are delivered again, their answer is the stored outcome.
    pub async fn apply(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        let pending = distinct(requests);
        let mut split = Split::new(self, pending.len());
        split.run(&pending).await?;
        let decided = split.finish();
        let decisions = requests
            .iter()
            .map(|request| decided[&key(request)].clone());
        Ok(decisions.collect())
    }
}
