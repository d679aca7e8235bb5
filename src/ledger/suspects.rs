//! Redelivered messages, and the number of their attempts (`migrations/V6__suspects.sql`).
//!
//! It must not know how a message is processed: the worker reports when an attempt begins, and when
//! it ended without a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Ledger;
use super::error::{LedgerError, StatementError, classify};

/// Attempts of a message that began and are not known to have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts together with other messages.
    pub together: u32,
    /// Attempts with no other message in progress.
    pub alone: u32,
}

impl Ledger {
    /// The attempts of `messages`. Messages without a row are left out.
    ///
    /// # Errors
    ///
    /// If the database is unavailable.
    pub async fn tries(&self, messages: &[Uuid]) -> Result<BTreeMap<Uuid, Tries>, LedgerError> {
        let reading = async |client: &Object| {
            let classify = |error| classify(&error, &self.host);
            let statement = client.prepare_cached(include_str!("suspects/tries.sql"));
            let statement = statement.await.map_err(classify)?;
            client
                .query(&statement, &[&messages])
                .await
                .map_err(classify)
        };
        let rows = available(self.on_connection(reading).await)?;
        let count = |count: i32| u32::try_from(count).unwrap_or(0);
        let tries = rows.iter().map(|row| {
            let (together, alone) = (count(row.get(1)), count(row.get(2)));
            (row.get(0), Tries { together, alone })
        });
        Ok(tries.collect())
    }

    /// Records that an attempt of each of `messages` begins.
    ///
    /// # Errors
    ///
    /// If the database is unavailable. The attempt must not begin then.
    pub async fn note_try(&self, messages: &[Uuid], alone: bool) -> Result<(), LedgerError> {
        let note = include_str!("suspects/note.sql");
        self.change_suspects(note, &[&messages, &alone]).await
    }

    /// Deletes the rows of settled messages.
    ///
    /// # Errors
    ///
    /// If the database is unavailable.
    pub async fn forget_suspects(&self, messages: &[Uuid]) -> Result<(), LedgerError> {
        let forget = include_str!("suspects/forget.sql");
        self.change_suspects(forget, &[&messages]).await
    }

    /// Subtracts attempts that ended without a crash and without settling their message.
    ///
    /// # Errors
    ///
    /// If the database is unavailable.
    pub async fn uncount_tries(&self, tries: &BTreeMap<Uuid, Tries>) -> Result<(), LedgerError> {
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let messages: Vec<Uuid> = tries.keys().copied().collect();
        let together: Vec<i32> = tries.values().map(|tries| count(tries.together)).collect();
        let alone: Vec<i32> = tries.values().map(|tries| count(tries.alone)).collect();
        let uncount = include_str!("suspects/uncount.sql");
        self.change_suspects(uncount, &[&messages, &together, &alone])
            .await
    }

    /// Deletes rows that are older than `age`.
    ///
    /// # Errors
    ///
    /// If the database is unavailable.
    pub async fn clean_suspects(&self, age: Duration) -> Result<(), LedgerError> {
        let clean = include_str!("suspects/clean.sql");
        self.change_suspects(clean, &[&age.as_secs_f64()]).await
    }

    async fn change_suspects(
        &self,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), LedgerError> {
        let changing = async |client: &Object| {
            let classify = |error| classify(&error, &self.host);
            let statement = client.prepare_cached(statement).await.map_err(classify)?;
            client.execute(&statement, params).await.map_err(classify)
        };
        available(self.on_connection(changing).await).map(|_| ())
    }
}

/// These statements do not depend on a request, so each of their errors is the database's failure.
fn available<T>(done: Result<T, StatementError>) -> Result<T, LedgerError> {
    done.map_err(StatementError::into_error)
}
