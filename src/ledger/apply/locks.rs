//! Usages on which others were found to hold locks of late: requests on them are tried apart, so
//! that only one request waits for each lock, and only once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// How long a lock that was met is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// Usages that are remembered at most.
const USAGES: usize = 10_000;

/// What the workers of a process know of locks.
#[derive(Debug, Default)]
pub struct Locks(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    usages: HashMap<Uuid, Met>,
    last: Option<Instant>,
}

/// When a lock was met, for the first time and for the last.
#[derive(Clone, Copy, Debug)]
struct Met {
    first: Instant,
    last: Instant,
}

impl Met {
    fn is_fresh(self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < REMEMBERED_FOR
    }
}

impl Locks {
    /// Notes that others hold a lock on a usage, and returns for how long they are known to.
    pub fn met(&self, usage: Uuid) -> Duration {
        let (mut known, now) = (self.known(), Instant::now());
        known.last = Some(now);
        if known.usages.len() >= USAGES {
            known.usages.retain(|_, met| met.is_fresh(now));
        }
        let before = known.usages.get(&usage).filter(|met| met.is_fresh(now));
        let first = before.map_or(now, |met| met.first);
        if known.usages.len() < USAGES {
            known.usages.insert(usage, Met { first, last: now });
        }
        now.saturating_duration_since(first)
    }

    /// Whether any lock was met of late.
    pub fn are_about(&self) -> bool {
        let last = self.known().last;
        last.is_some_and(|last| last.elapsed() < REMEMBERED_FOR)
    }

    /// Which of these usages were locked of late: one answer for each.
    pub fn of(&self, usages: impl Iterator<Item = Uuid>) -> Vec<bool> {
        let (known, now) = (self.known(), Instant::now());
        let is_locked = |usage: Uuid| {
            let met = known.usages.get(&usage);
            met.is_some_and(|met| met.is_fresh(now))
        };
        usages.map(is_locked).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
