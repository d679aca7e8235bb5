//! Runs a batch: usually as one part, in one round. If the server refuses a statement and a probe
//! finds the server in order, each half is tried by itself, down to the requests at fault. The time
//! that locks of other sessions may cost a batch is bounded.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::{Instant, sleep};

use super::round::{LookUp, Round, StatementLimits};
use super::unit::{RequestKey, Unit, key};
use crate::common::backoff::Backoff;
use crate::common::failpoint;
use crate::domain::outcome::{Aside, Decision, Failure, Verdict};
use crate::ledger::client::{Ledger, STATEMENT_TIMEOUT};
use crate::ledger::error::{LedgerError, RefusalCause, StatementError};

/// Longest that the server works on a part of a batch.
const PART_TIMEOUT: Duration = Duration::from_secs(1);

/// Tries of a part that met a deadlock, a serialization failure or an entry of another writer: of
/// a part with several requests, so that one whose conflict does not end holds up the others only
/// briefly, and of a request alone.
const CONTENDED_TRIES: (usize, usize) = (3, 8);

/// How long the parts of a refused statement are tried; the rest waits on a rung.
const PARTS_AT_MOST: Duration = Duration::from_secs(5);

/// The same where locks of others are in the way: the whole has waited for them already.
const LOCKED_PARTS_AT_MOST: Duration = Duration::from_millis(250);

/// How long requests on usages that are known to be locked are tried.
const KNOWN_AT_MOST: Duration = Duration::from_millis(60);

/// Longest wait for a lock where locks were met of late: they are not to add up.
const LOCKS_ABOUT_TIMEOUT: Duration = Duration::from_millis(100);

/// The same for a part of a batch. It shrinks with the time that is left, so that many locks do not
/// use it up.
const PART_LOCK_TIMEOUT: Duration = Duration::from_millis(10);
const SHORTEST_LOCK_TIMEOUT: Duration = Duration::from_millis(2);

/// Requests for which the server has no room, from which on it has none for any.
const SEVERAL: usize = 2;

/// A batch that is being decided.
pub(crate) struct Split<'a> {
    ledger: &'a Ledger,
    /// The decisions so far, by the index of the request.
    decisions: Vec<Option<Decision>>,
    /// Whether a probe found the server in order after it refused a statement.
    probed: bool,
    /// Since then: the time at which the parts are given up.
    until: Option<Instant>,
    /// Requests that failed for want of room, and what the server lacks.
    short: Vec<ShortRequest>,
}

/// A request for which the server had no room.
struct ShortRequest {
    index: usize,
    key: RequestKey,
    error: LedgerError,
}

impl<'a> Split<'a> {
    pub fn new(ledger: &'a Ledger, requests: usize) -> Self {
        Self {
            ledger,
            decisions: vec![None; requests],
            probed: false,
            until: None,
            short: Vec::new(),
        }
    }

    /// Decides the requests. Those on usages that other sessions lock come last.
    pub async fn run(&mut self, units: &[Unit<'_>]) -> Result<(), LedgerError> {
        let locks = &self.ledger.locks;
        let is_locked = |unit: &Unit<'_>| locks.of(unit.usages()).contains(&true);
        if !locks.are_about() {
            return self.run_in_parts(units).await;
        }
        let (locked, free): (Vec<_>, Vec<_>) = units.iter().copied().partition(is_locked);
        self.run_in_parts(&free).await?;
        if locked.is_empty() {
            return Ok(());
        }
        let before = self.until.replace(Instant::now() + KNOWN_AT_MOST);
        let done = self.run_in_parts(&locked).await;
        self.until = before;
        done
    }

    /// Decides the requests in one round. If a request fails it, each half has a round of its own.
    async fn run_in_parts(&mut self, units: &[Unit<'_>]) -> Result<(), LedgerError> {
        // A stack with the left half on top keeps the order of delivery.
        let mut parts = vec![units];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            if self.is_over() {
                self.set_aside(part);
                continue;
            }
            let waits_long = self.until.is_none() && !self.ledger.locks.are_about();
            let (failure, refused) = match self.run_contended(part).await {
                Ok(decisions) => {
                    self.take(part, decisions);
                    continue;
                }
                Err(StatementError::Unavailable(error)) => return Err(error),
                Err(StatementError::Contended(text)) => (Failure::Unavailable(text), None),
                Err(StatementError::Refused(refused)) => {
                    self.refused(refused.cause).await?;
                    (refused.failure, Some((refused.cause, refused.error)))
                }
            };
            if let [unit] = part {
                self.failed(unit, &failure, refused.as_ref(), waits_long);
            } else {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
        }
        Ok(())
    }

    /// The decision on each request. If several requests had no room since something was last
    /// written, the server lacks it; one alone may be at fault itself, and waits.
    pub fn finish(mut self) -> Vec<Decision> {
        let mut without_room = self.ledger.without_room();
        if self.decisions.iter().flatten().any(writes_entries) {
            without_room.clear();
        } else if !self.short.is_empty() {
            for short in &self.short {
                if without_room.len() < SEVERAL {
                    without_room.insert(short.key);
                }
            }
            let is_servers_fault = without_room.len() >= SEVERAL;
            for short in self.short {
                if let Some(Decision::SetAside(_, aside)) = &mut self.decisions[short.index] {
                    *aside = if is_servers_fault {
                        Aside::Server(short.error.to_string())
                    } else {
                        Aside::Untried
                    };
                }
            }
        }
        drop(without_room);
        let decided = self.decisions.into_iter();
        decided
            .map(|decision| decision.expect("every part is decided or set aside"))
            .collect()
    }

    fn take(&mut self, part: &[Unit<'_>], decisions: Vec<Decision>) {
        let indexes = part
            .iter()
            .flat_map(|unit| unit.first..unit.first + unit.requests.len());
        for (index, decision) in indexes.zip(decisions) {
            self.decisions[index] = Some(decision);
        }
    }

    /// The server refused a statement: its own fault unless it is in order without requests.
    async fn refused(&mut self, cause: RefusalCause) -> Result<(), LedgerError> {
        if !self.probed {
            self.ledger.probe().await?;
            self.probed = true;
        }
        let at_most = match cause {
            RefusalCause::Lock => LOCKED_PARTS_AT_MOST,
            RefusalCause::Writing | RefusalCause::Other => PARTS_AT_MOST,
        };
        let until = Instant::now() + at_most;
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
        Ok(())
    }

    fn is_over(&self) -> bool {
        // Without a rung, what is given up would have nowhere to wait.
        self.ledger.has_rungs && self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn set_aside(&mut self, part: &[Unit<'_>]) {
        let reason = "it was not tried to the end, since its batch met locks or failures";
        for unit in part {
            let failure = Failure::Unavailable(reason.into());
            self.decide(unit, &Decision::SetAside(failure, Aside::Untried));
        }
    }

    /// Gives each request of a unit the same decision.
    fn decide(&mut self, unit: &Unit<'_>, decision: &Decision) {
        for index in unit.first..unit.first + unit.requests.len() {
            self.decisions[index] = Some(decision.clone());
        }
    }

    fn failed(
        &mut self,
        unit: &Unit<'_>,
        failure: &Failure,
        refused: Option<&(RefusalCause, LedgerError)>,
        waited_long: bool,
    ) {
        let failure = failure.clone();
        let decision = match refused {
            Some((RefusalCause::Writing, error)) => {
                // The requests of a group count as one: they fail together.
                let first = key(&unit.requests[0]);
                self.short
                    .extend((0..unit.requests.len()).map(|offset| ShortRequest {
                        index: unit.first + offset,
                        key: first,
                        error: error.clone(),
                    }));
                Decision::SetAside(failure, Aside::Room)
            }
            Some((RefusalCause::Lock, _)) => {
                let held_for = unit
                    .usages()
                    .map(|usage| self.ledger.locks.met(usage))
                    .max();
                if waited_long || held_for >= Some(self.ledger.lock_timeout) {
                    Decision::Failed(failure)
                } else {
                    // A part waits for milliseconds: the lock may be another worker's, who is about
                    // to commit.
                    Decision::SetAside(failure, Aside::Untried)
                }
            }
            Some((RefusalCause::Other, _)) | None => Decision::Failed(failure),
        };
        self.decide(unit, &decision);
    }

    async fn run_contended(&self, part: &[Unit<'_>]) -> Result<Vec<Decision>, StatementError> {
        let mut look_up = if self.ledger.recently_contended() {
            LookUp::All
        } else {
            LookUp::Needed
        };
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(200));
        let (together, alone) = CONTENDED_TRIES;
        let tries = if part.len() > 1 { together } else { alone };
        for _ in 1..tries {
            match (self.run_once(part, look_up).await, look_up) {
                // The other writer has committed, and the next round looks up its rows.
                (Err(StatementError::Contended(_)), LookUp::Needed) => {
                    self.ledger.note_contention();
                    look_up = LookUp::All;
                }
                (Err(StatementError::Contended(_)), LookUp::All) => {
                    sleep(backoff.next_wait()).await;
                }
                (done, _) => return done,
            }
        }
        self.run_once(part, look_up).await
    }

    async fn run_once(
        &self,
        part: &[Unit<'_>],
        look_up: LookUp,
    ) -> Result<Vec<Decision>, StatementError> {
        let limits = match self.until {
            None if self.ledger.locks.are_about() => Some(StatementLimits {
                lock_timeout: LOCKS_ABOUT_TIMEOUT,
                statement_timeout: STATEMENT_TIMEOUT,
            }),
            None => None,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Some(StatementLimits {
                    lock_timeout: (left / 40).clamp(SHORTEST_LOCK_TIMEOUT, PART_LOCK_TIMEOUT),
                    statement_timeout: PART_TIMEOUT,
                })
            }
        };
        let deciding = async |client: &Object| {
            let round = Round::new(self.ledger, client, limits);
            failpoint::hit_during(failpoint::DECIDING, round.run(part, look_up)).await
        };
        self.ledger.on_connection(deciding).await
    }
}

/// Whether the server had room for entries.
fn writes_entries(decision: &Decision) -> bool {
    match decision {
        Decision::Decided(outcome) => matches!(outcome.verdict, Verdict::Applied(_)),
        Decision::Repeated(_) | Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => {
            false
        }
    }
}
