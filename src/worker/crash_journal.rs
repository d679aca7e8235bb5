//! The crash journal: the tries of redelivered messages, written to the database before each try.
//!
//! A message that is delivered for the first time is not recorded. A redelivered message may have
//! crashed the process. Each try of it is therefore counted before it begins, and each try has
//! fewer messages than the one before. In the end the message is tried alone, while no other batch
//! of the process is in work, so that a crash has one possible cause. A try that ends with a
//! server's failure or a stop is not counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use crate::ledger::{Ledger, LedgerError, Tries};

/// The factor by which each try has fewer messages than the one before; the first has fewer than a
/// batch.
const SHRINK: usize = 4;

/// The time after which a row that was not deleted is removed. A message that is tried again later
/// starts at zero.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The tries of the process.
pub struct CrashJournal {
    ledger: Ledger,
    batch_max: usize,
    /// Locked shared by each batch in work, and exclusively by a message that is tried alone.
    in_work: RwLock<()>,
    /// Tries that began and did not end.
    begun: Mutex<BTreeMap<Uuid, Tries>>,
}

/// The lock of a batch in work.
pub enum InWork<'a> {
    /// Other batches may be in work too.
    Together { _held: RwLockReadGuard<'a, ()> },
    /// No other batch is in work.
    Alone { _held: RwLockWriteGuard<'a, ()> },
}

impl CrashJournal {
    pub fn new(ledger: Ledger, batch_max: u16) -> Self {
        Self {
            ledger,
            batch_max: batch_max.into(),
            in_work: RwLock::new(()),
            begun: Mutex::default(),
        }
    }

    /// The largest number of redelivered messages in a batch.
    pub fn most_at_once(&self) -> usize {
        size(self.batch_max, 0)
    }

    /// The number of messages, from the first on, that are tried together after these tries.
    pub fn part(&self, messages: &[Uuid], tries: &BTreeMap<Uuid, Tries>) -> usize {
        let mut most = self.most_at_once();
        let behind = |message| tries.get(message).copied().unwrap_or_default();
        for (count, message) in messages.iter().enumerate() {
            most = most.min(size(self.batch_max, behind(message).together));
            if most <= count {
                return count.max(1);
            }
        }
        messages.len()
    }

    /// Waits until a batch of first deliveries may be worked on.
    pub async fn begin(&self) -> InWork<'_> {
        let held = self.in_work.read().await;
        InWork::Together { _held: held }
    }

    /// Waits until redelivered messages may be tried, and records the try.
    ///
    /// # Errors
    /// If the database does not work at present. The try must not begin then.
    pub async fn begin_again(
        &self,
        messages: &[Uuid],
        tries: &BTreeMap<Uuid, Tries>,
    ) -> Result<InWork<'_>, LedgerError> {
        let behind = messages.iter().filter_map(|message| tries.get(message));
        let together = behind.map(|tries| tries.together).max().unwrap_or(0);
        let alone = size(self.batch_max, together) == 1;
        let in_work = if alone {
            let held = self.in_work.write().await;
            InWork::Alone { _held: held }
        } else {
            self.begin().await
        };
        // Before it is written, since a write that seems to fail may have been committed.
        for message in messages {
            let mut begun = self.begun();
            let begun = begun.entry(*message).or_default();
            if alone {
                begun.alone += 1;
            } else {
                begun.together += 1;
            }
        }
        self.ledger.note_try(messages, alone).await?;
        Ok(in_work)
    }

    /// Deletes the tries of settled messages.
    ///
    /// # Errors
    /// If the database does not work at present.
    pub async fn settled(&self, messages: &[Uuid]) -> Result<(), LedgerError> {
        self.ledger.forget_suspects(messages).await?;
        let mut begun = self.begun();
        for message in messages {
            begun.remove(message);
        }
        Ok(())
    }

    /// The recorded tries of these messages.
    ///
    /// # Errors
    /// If the database does not work at present.
    pub async fn tries(&self, messages: &[Uuid]) -> Result<BTreeMap<Uuid, Tries>, LedgerError> {
        self.ledger.tries(messages).await
    }

    /// Keeps the recorded tries that did not end: one of them made a worker panic.
    pub fn crashed(&self) {
        self.begun().clear();
    }

    /// Deletes the tries that did not end, since nothing crashed.
    ///
    /// # Errors
    /// If the database does not work at present. The next call deletes them.
    pub async fn uncount(&self) -> Result<(), LedgerError> {
        let begun = self.begun().clone();
        if begun.is_empty() {
            return Ok(());
        }
        self.ledger.uncount_tries(&begun).await?;
        self.begun().clear();
        Ok(())
    }

    /// Deletes the tries that did not end, and old rows of processes that died after a message was
    /// settled. Shows that the role may record a try. Called before anything is consumed.
    ///
    /// # Errors
    /// If the database does not work at present, or the role lacks a grant.
    pub async fn open(&self) -> Result<(), LedgerError> {
        self.uncount().await?;
        self.ledger.clean_suspects(KEPT_FOR).await?;
        self.ledger.note_try(&[], false).await
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Uuid, Tries>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of messages that are tried together after so many tries.
fn size(batch_max: usize, tries: u32) -> usize {
    let smaller = |size: usize, _| size / SHRINK;
    // As many steps make every size 0.
    (0..=tries.min(usize::BITS)).fold(batch_max, smaller).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_after_a_crash_has_fewer_messages() {
        let sizes: Vec<usize> = (0..6).map(|tries| size(500, tries)).collect();
        assert_eq!(sizes, [125, 31, 7, 1, 1, 1]);
        assert_eq!(size(1, 0), 1);
        assert_eq!(size(65_535, u32::MAX), 1);
    }
}
