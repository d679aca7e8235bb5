//! Wrong secrets: how often an address may try another one of the same id, and who is told of it.
//!
//! An address that sends wrong secrets of an id is kept from asking the broker about that id, for
//! longer each time. Other addresses are not, so the right secret is never locked out by a
//! stranger. Nothing here depends on whether the broker knows the id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tracing::warn;

use crate::common::http_server::Source;
use crate::common::log_limit::LogLimit;

/// Wrong secrets that cost no wait: somebody mistypes, or has not heard of a change yet.
const FREE: u32 = 3;

/// The first wait; each further wrong secret doubles it, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long wrong secrets are remembered after the last one.
const REMEMBERED: Duration = Duration::from_mins(15);

/// Pairs of id and address that are remembered; the ones used longest ago are forgotten first.
const PAIRS_MAX: u64 = 10_000;

/// Wrong secrets of one address that are worth a line, whatever the ids.
const WORTH_A_LINE: u64 = 10;

/// Addresses whose wrong secrets are counted for the next line, and those that it names.
const ADDRESSES_MAX: usize = 1000;
const ADDRESSES_NAMED: usize = 10;

/// Wrong secrets, by id and address.
pub struct Guesses {
    tried: Cache<(String, Source), Arc<Mutex<FailedLogins>>>,
    by_address: Mutex<BTreeMap<Source, u64>>,
    line: LogLimit,
}

/// What one address tried of one id.
#[derive(Debug, Default)]
struct FailedLogins {
    failures: u32,
    until: Option<Instant>,
}

impl Guesses {
    pub fn new() -> Self {
        Self {
            tried: Cache::builder()
                .max_capacity(PAIRS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(REMEMBERED)
                .build(),
            by_address: Mutex::default(),
            line: LogLimit::default(),
        }
    }

    /// How long the address must wait before it may try this id again; none where it may.
    pub async fn wait(&self, id: &str, source: Source) -> Option<Duration> {
        let tried = self.tried.get(&(id.to_owned(), source)).await?;
        locked(&tried).wait(Instant::now())
    }

    /// Takes a try, which counts as a wrong one until its end is known: many at the same time get
    /// no further than one after the other.
    ///
    /// # Errors
    /// How long the address must wait.
    pub async fn begin(&self, id: &str, source: Source) -> Result<(), Duration> {
        let tried = self
            .tried
            .get_with((id.to_owned(), source), async { Arc::default() });
        let tried = tried.await;
        locked(&tried).begin(Instant::now())
    }

    /// The secret was right.
    pub async fn right(&self, id: &str, source: Source) {
        self.tried.invalidate(&(id.to_owned(), source)).await;
    }

    /// The broker could not say whether it was.
    pub async fn undecided(&self, id: &str, source: Source) {
        if let Some(tried) = self.tried.get(&(id.to_owned(), source)).await {
            locked(&tried).take_back();
        }
    }

    /// The secret was wrong, or the address had to wait. Says so once a minute, with the addresses, once it is
    /// more than somebody who mistyped.
    pub fn refused(&self, source: Source, had_to_wait: bool) {
        let mut addresses = locked(&self.by_address);
        if addresses.len() < ADDRESSES_MAX || addresses.contains_key(&source) {
            *addresses.entry(source).or_default() += 1;
        }
        let of_this = addresses.get(&source).copied().unwrap_or_default();
        if !had_to_wait && of_this < WORTH_A_LINE || self.line.note(1).is_none() {
            return;
        }
        let addresses = std::mem::take(&mut *addresses);
        warn!(
            event = "logins_refused",
            refused = addresses.values().sum::<u64>(),
            addresses = named(addresses),
            "wrong secrets come: an address that goes on with an id waits up to a minute before the broker is asked \
             again; block addresses that are no clients'"
        );
    }

    pub async fn tidy(&self) {
        self.tried.run_pending_tasks().await;
    }
}

/// The addresses with the most wrong secrets, and how many.
fn named(addresses: BTreeMap<Source, u64>) -> String {
    let mut counts: Vec<_> = addresses.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = counts.iter().take(ADDRESSES_NAMED);
    let shown: Vec<_> = shown
        .map(|(source, count)| format!("{source} ({count})"))
        .collect();
    shown.join(", ")
}

/// Nothing panics while it holds one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FailedLogins {
    fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.until?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn begin(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        self.failures = self.failures.saturating_add(1);
        self.until = wait_after(self.failures).map(|wait| now + wait);
        Ok(())
    }

    fn take_back(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        self.until = None;
    }
}

/// How long an address waits after so many wrong secrets of an id.
fn wait_after(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(FREE + 1)?;
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    Some(FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_three_failures_waits_double_up_to_a_minute() {
        let waits: Vec<_> = (1..=12)
            .map(|failures| wait_after(failures).map_or(0, |wait| wait.as_secs()))
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait_after(u32::MAX), Some(LONGEST_WAIT));
    }

    #[test]
    fn a_login_attempt_counts_until_it_has_ended() {
        let (mut tried, now) = (FailedLogins::default(), Instant::now());
        let begun = (0..20).filter(|_| tried.begin(now).is_ok()).count();
        assert_eq!(begun, 4, "however many come at the same time");
        let later = now + Duration::from_millis(1500);
        assert_eq!(tried.begin(later), Ok(()));
        assert_eq!(tried.begin(later), Err(Duration::from_secs(2)));
        tried.take_back();
        assert_eq!(tried.begin(later), Ok(()));
    }

    #[tokio::test]
    async fn a_guessing_address_does_not_block_other_addresses() {
        let guesses = Guesses::new();
        let [bad, good] = [[127, 0, 0, 1], [127, 0, 0, 2]]
            .map(|address| Source::from(std::net::IpAddr::from(address)));
        while guesses.begin("id", bad).await.is_ok() {}
        assert!(guesses.wait("id", bad).await.is_some());
        assert_eq!(guesses.wait("id", good).await, None);
        assert_eq!(guesses.wait("other", bad).await, None);
        guesses.right("id", bad).await;
        assert_eq!(guesses.wait("id", bad).await, None);
    }

    #[tokio::test]
    async fn address_and_id_pairs_are_bounded() {
        let guesses = Guesses::new();
        let source = Source::from(std::net::IpAddr::from([127, 0, 0, 1]));
        for id in 0..2 * PAIRS_MAX {
            assert_eq!(guesses.begin(&id.to_string(), source).await, Ok(()));
        }
        guesses.tidy().await;
        assert!(guesses.tried.entry_count() <= PAIRS_MAX);
    }
}
