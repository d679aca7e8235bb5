//! Routes with a queue that did not answer. A message to such a queue stops its channel, on the
//! broker too, so only one message in a while is published to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time after which another message is published to a queue that did not answer.
const BETWEEN_TRIES: Duration = Duration::from_secs(30);

/// The number of routes that are remembered.
const ROUTES: usize = 10_000;

/// The routes, by exchange and routing key, with the time of the last try.
#[derive(Debug, Default)]
pub struct SilentQueues(Mutex<BTreeMap<(String, String), Instant>>);

/// The number of messages that may be published together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    All,
    /// One, to learn whether the queue answers again.
    One,
    None,
}

impl SilentQueues {
    /// Whether a queue of that route did not answer.
    pub fn contains(&self, (exchange, key): (&str, &str)) -> bool {
        let tries = self.tries();
        !tries.is_empty() && tries.contains_key(&owned((exchange, key)))
    }

    /// The permit for messages of that route.
    pub fn permit(&self, route: (&str, &str), now: Instant) -> Permit {
        match self.tries().get_mut(&owned(route)) {
            None => Permit::All,
            Some(tried) if now.duration_since(*tried) < BETWEEN_TRIES => Permit::None,
            Some(tried) => {
                *tried = now;
                Permit::One
            }
        }
    }

    /// A queue did not answer.
    pub fn silent(&self, route: (&str, &str), now: Instant) {
        let mut tries = self.tries();
        if tries.len() >= ROUTES {
            tries.retain(|_, tried| now.duration_since(*tried) < BETWEEN_TRIES);
        }
        if tries.len() < ROUTES {
            tries.insert(owned(route), now);
        }
    }

    /// A queue answered.
    pub fn answered(&self, route: (&str, &str)) {
        self.tries().remove(&owned(route));
    }

    fn tries(&self) -> MutexGuard<'_, BTreeMap<(String, String), Instant>> {
        // Each change is complete before code can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned((exchange, key): (&str, &str)) -> (String, String) {
    (exchange.to_owned(), key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_queue_gets_one_message_in_a_while() {
        let (queues, began) = (SilentQueues::default(), Instant::now());
        let (silent, other) = (("", "silent"), ("", "other"));
        assert_eq!(queues.permit(silent, began), Permit::All);
        queues.silent(silent, began);
        assert_eq!(queues.permit(silent, began), Permit::None);
        assert_eq!(queues.permit(other, began), Permit::All);
        let later = began + BETWEEN_TRIES;
        assert_eq!(queues.permit(silent, later), Permit::One);
        assert_eq!(queues.permit(silent, later), Permit::None);
        queues.answered(silent);
        assert_eq!(queues.permit(silent, later), Permit::All);
    }
}
