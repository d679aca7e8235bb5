//! Waiting longer after each failure: exponential, jittered, bounded.
//!
//! The one place that names the `backoff` crate (see deny.toml), so that replacing it is one file.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// The waits between tries of something that goes on failing.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Waits that double from about `first` to about `longest`, each off by up to a half at random,
    /// so that a fleet doesn't return in step.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        // Without max_elapsed_time there always is one.
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// After a success, waits begin anew.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_reset() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut patience = Backoff::new(first, longest);
        let waits: Vec<_> = (0..50).map(|_| patience.next_wait()).collect();
        assert!(
            waits[0] >= first / 2 && waits[0] <= first * 3 / 2,
            "{waits:?}"
        );
        assert!(
            waits.iter().all(|wait| *wait <= longest * 3 / 2),
            "{waits:?}"
        );
        assert!(
            waits[40..].iter().all(|wait| *wait >= longest / 2),
            "{waits:?}"
        );
        patience.reset();
        assert!(patience.next_wait() <= first * 3 / 2);
    }
}
