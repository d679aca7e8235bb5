//! A database session outside the pool, for work that is no batch.

use tokio::time::timeout;
use tokio_postgres::Client;

use super::connect::single;
use crate::config::Settings;
use crate::ledger::client::ANSWER_TIMEOUT;
use crate::ledger::error::{LedgerError, unavailable};

pub struct Session {
    pub client: Client,
    pub host: String,
}

impl Session {
    pub async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let (client, host) = single(settings).await?;
        Ok(Self { client, host })
    }

    pub async fn exists(&self, query: &str) -> Result<bool, LedgerError> {
        Ok(!self
            .answered(self.client.query(query, &[]))
            .await?
            .is_empty())
    }

    /// The answer to a query that takes little time. Statements that build something use
    /// [`Session::execute`], which has no time limit.
    pub async fn answered<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, LedgerError> {
        let answer = timeout(ANSWER_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| LedgerError::silent(&self.host))?;
        answer.map_err(|error| self.classify(&error))
    }

    pub async fn execute(&self, statements: &str) -> Result<(), LedgerError> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| self.classify(&error))
    }

    pub fn classify(&self, error: &tokio_postgres::Error) -> LedgerError {
        unavailable(error, &self.host)
    }
}
