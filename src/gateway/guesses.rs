//! Wrong secrets: limits how often an address may try secrets of one id, and warns the operator.
//!
//! An address that sends wrong secrets of an id must wait before the gateway asks the broker about
//! that id again; the wait doubles. Other addresses need not wait, so a stranger can't lock out the
//! right secret. Nothing here depends on whether the broker knows the id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tracing::warn;

use crate::common::http_server::Source;
use crate::common::log_limit::LogLimit;

/// Wrong secrets without a wait: a user mistypes, or a client still has the old secret.
const FREE: u32 = 3;

/// The first wait; each further wrong secret doubles it, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long wrong secrets are remembered after the last one.
const REMEMBERED: Duration = Duration::from_mins(15);

/// Most pairs of id and address that are remembered; the least recently used pairs are evicted
/// first.
const PAIRS_MAX: u64 = 10_000;

/// After this many wrong secrets from one address, of any ids, a warning is logged.
const WORTH_A_LINE: u64 = 10;

/// Most addresses that are counted for the next warning, and most that the warning names.
const ADDRESSES_MAX: usize = 1000;
const ADDRESSES_NAMED: usize = 10;

/// Counts of wrong secrets, by id and address.
pub struct Guesses {
    tried: Cache<(String, Source), Arc<Mutex<FailedLogins>>>,
    by_address: Mutex<BTreeMap<Source, u64>>,
    line: LogLimit,
}

/// The tries of one address for one id.
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

    /// How long the address must wait before it may try this id again; `None` if it may try now.
    pub async fn wait(&self, id: &str, source: Source) -> Option<Duration> {
        let tried = self.tried.get(&(id.to_owned(), source)).await?;
        locked(&tried).wait(Instant::now())
    }

    /// Begins a try. It counts as a failure until `right` or `undecided` is called, so concurrent
    /// tries gain no more than sequential ones.
    ///
    /// # Errors
    /// If the address must wait: for how long.
    pub async fn begin(&self, id: &str, source: Source) -> Result<(), Duration> {
        let tried = self
            .tried
            .get_with((id.to_owned(), source), async { Arc::default() });
        let tried = tried.await;
        locked(&tried).begin(Instant::now())
    }

    /// The secret was right: forgets the failures of the address for this id.
    pub async fn right(&self, id: &str, source: Source) {
        self.tried.invalidate(&(id.to_owned(), source)).await;
    }

    /// The broker did not decide the try: it no longer counts as a failure.
    pub async fn undecided(&self, id: &str, source: Source) {
        if let Some(tried) = self.tried.get(&(id.to_owned(), source)).await {
            locked(&tried).take_back();
        }
    }

    /// Counts a wrong secret, or a request of an address that had to wait. Logs a warning with the
    /// addresses, at most once a minute, once there are more failures than a mistyped secret
    /// explains.
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
            "clients sent wrong secrets; an address that repeats an id waits up to a minute before \
             the gateway asks the broker again; block addresses that belong to no client"
        );
    }

    pub async fn tidy(&self) {
        self.tried.run_pending_tasks().await;
    }
}

/// The addresses with the most wrong secrets, each with its count.
fn named(addresses: BTreeMap<Source, u64>) -> String {
    let mut counts: Vec<_> = addresses.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = counts.iter().take(ADDRESSES_NAMED);
    let shown: Vec<_> = shown
        .map(|(source, count)| format!("{source} ({count})"))
        .collect();
    shown.join(", ")
}

/// No code panics while it holds one of these locks.
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

/// How long an address waits after this many wrong secrets of an id.
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
