//! Decides a batch.

use super::split::Split;
use super::unit::Unit;
use crate::domain::outcome::Decision;
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::LedgerError;

impl Ledger {
    /// Decides `requests`, in their order, and writes the decisions. Returns a decision for each,
    /// in the same order. Adjacent members of one atomic group are decided together.
    ///
    /// # Errors
    /// If the database cannot work at present. Some requests may be decided nevertheless; when they
    /// are delivered again, their answer is the stored outcome.
    pub async fn apply(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        let mut split = Split::new(self, requests.len());
        split.run(&Unit::all(requests)).await?;
        Ok(split.finish())
    }
}
