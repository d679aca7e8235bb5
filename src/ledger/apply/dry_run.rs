//! Decides requests without writing the decisions.

use super::pending::{Decided, Pending, distinct, key};
use super::round::{LookUp, Round};
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
        let pending = distinct(requests);
        let deciding = self.on_connection(async |client| {
            let round = Round::new(self, client, None);
            round.decide(&pending, LookUp::All).await
        });
        let (rulings, _) = deciding.await.map_err(StatementError::into_error)?;
        let decisions = rulings.into_iter().map(|ruling| ruling.decision);
        let decided: Decided = pending.iter().map(Pending::key).zip(decisions).collect();
        let decisions = requests
            .iter()
            .map(|request| decided[&key(request)].clone());
        Ok(decisions.collect())
    }
}
