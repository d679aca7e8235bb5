//! How much of something each client holds, and no more than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what each client holds. A client that holds nothing takes no memory.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    most: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// A part of a client's share, held until it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    key: K,
    count: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// At most `most` for each client.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// How many a client may hold.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// So many for this client, one or more; none if it would hold more than its share.
    #[must_use]
    pub fn take(&self, key: K, count: usize) -> Option<Share<K>> {
        // Nothing panics while it holds the lock.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = held.get(&key).copied().unwrap_or_default();
        if before + count > self.most {
            return None;
        }
        held.insert(key.clone(), before + count);
        let held = self.held.clone();
        Some(Share { key, count, held })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= self.count;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_take_the_share_of_another() {
        let shares = Shares::new(2);
        let (first, second) = (shares.take("a", 1), shares.take("a", 1));
        assert!(first.is_some() && second.is_some() && shares.take("a", 1).is_none());
        assert!(shares.take("b", 2).is_some() && shares.take("b", 3).is_none());
        drop(first);
        assert!(shares.take("a", 2).is_none() && shares.take("a", 1).is_some());
        drop(second);
        assert!(shares.held.lock().expect("whole").is_empty());
    }
}
