//! Tells a failure of the server from that of a request.

use super::round::Round;
use crate::ledger::client::{COMMIT_NOTHING, Ledger};
use crate::ledger::error::{LedgerError, StatementError, classify};

impl Ledger {
    /// Whether the server is in order: runs every statement of a batch without requests, then
    /// commits a record without meaning, since a server whose standby is missing runs statements
    /// and hangs in the commit.
    ///
    /// # Errors
    /// If the database cannot work at present.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        let probing = self.on_connection(async |client| {
            let round = Round::new(self, client, None);
            round.facts(&[]).await?;
            round.history(&[], &[]).await?;
            round.write_nothing().await?;
            let committed = client.batch_execute(COMMIT_NOTHING).await;
            committed.map_err(|error| classify(&error, &self.host))
        });
        probing.await.map_err(|error| {
            // Other connections may hold a plan that no longer fits.
            self.pool.retain(|_, _| false);
            StatementError::into_error(error)
        })
    }
}
