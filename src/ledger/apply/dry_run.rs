//! Decides requests without writing the decisions.

use super::round::{LookUp, Round};
use super::unit::Unit;
use crate::domain::outcome::Decision;
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::{LedgerError, StatementError};

impl Ledger {
    /// What [`Ledger::apply`] would answer to `requests` at this moment, in their order, each
    /// counting the ones before it. Only reads.
    ///
    /// # Errors
    /// If the database cannot work at present, or the role may not read its tables.
    pub async fn dry_run(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        let units = Unit::all(requests);
        let deciding = self.on_connection(async |client| {
            let round = Round::new(self, client, None);
            round.decide(&units, LookUp::All).await
        });
        let (rulings, _) = deciding.await.map_err(StatementError::into_error)?;
        Ok(rulings.into_iter().map(|ruling| ruling.decision).collect())
    }
}
