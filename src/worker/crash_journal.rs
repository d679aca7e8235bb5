//! What crashed the process: noted in the database before it is tried again, and forgotten when it is settled.
//!
//! A message that comes for the first time is not noted. One that comes again may be why the process died, so each try
//! is counted before it begins, and what it was tried with is made fewer each time: in the end it is tried alone, with
//! nothing else of this process in work, so that a crash is nobody else's. A try that a server's failure or a stop ends
//! is taken back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use crate::ledger::{Ledger, LedgerError, Tries};

/// By how much the messages of a try become fewer, from a batch to the first try and from try to try.
const SHRINK: usize = 4;

/// How long a row is kept that nobody forgot: a message that is tried again later begins anew.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The tries of a process.
pub struct CrashJournal {
    ledger: Ledger,
    batch_max: usize,
    /// Held by each batch in work; by one that is tried alone, as a whole.
    in_work: RwLock<()>,
    /// Tries that began and did not end.
    begun: Mutex<BTreeMap<Uuid, Tries>>,
}

/// What a batch holds while it is in work.
pub enum InWork<'a> {
    /// Others may be too.
    Together { _held: RwLockReadGuard<'a, ()> },
    /// No other is.
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

    /// How many messages that come again are taken at once.
    pub fn most_at_once(&self) -> usize {
        size(self.batch_max, 0)
    }

    /// How many of these messages are tried together, from the first on, by the tries behind them.
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

    /// Waits until a batch that comes for the first time may be worked on.
    pub async fn begin(&self) -> InWork<'_> {
        let held = self.in_work.read().await;
        InWork::Together { _held: held }
    }

    /// Waits until messages that come again may be tried, and notes the try.
    ///
    /// # Errors
    /// Where the database can't work at present. Then the try must not begin.
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
        // Before it is written: what may be there is to be taken back.
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

    /// Forgets messages that are settled.
    ///
    /// # Errors
    /// Where the database can't work at present.
    pub async fn settled(&self, messages: &[Uuid]) -> Result<(), LedgerError> {
        self.ledger.forget_suspects(messages).await?;
        let mut begun = self.begun();
        for message in messages {
            begun.remove(message);
        }
        Ok(())
    }

    /// The tries behind these messages.
    ///
    /// # Errors
    /// Where the database can't work at present.
    pub async fn tries(&self, messages: &[Uuid]) -> Result<BTreeMap<Uuid, Tries>, LedgerError> {
        self.ledger.tries(messages).await
    }

    /// Leaves the tries that did not end as they are noted: one of them crashed a worker.
    pub fn crashed(&self) {
        self.begun().clear();
    }

    /// Takes back the tries that did not end, since nothing crashed.
    ///
    /// # Errors
    /// Where the database can't work at present. They are kept for the next call.
    pub async fn uncount(&self) -> Result<(), LedgerError> {
        let begun = self.begun().clone();
        if begun.is_empty() {
            return Ok(());
        }
        self.ledger.uncount_tries(&begun).await?;
        self.begun().clear();
        Ok(())
    }

    /// Takes back what did not end, forgets what a process left behind that died between settling a message and
    /// forgetting it, and shows that a try can be noted. To be called before anything is consumed.
    ///
    /// # Errors
    /// Where the database can't work at present, or the role lacks a grant.
    pub async fn open(&self) -> Result<(), LedgerError> {
        self.uncount().await?;
        self.ledger.clean_suspects(KEPT_FOR).await?;
        self.ledger.note_try(&[], false).await
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Uuid, Tries>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many messages are tried together that have so many such tries behind them.
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
