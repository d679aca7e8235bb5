//! A batch in parts: where the server refuses its statement and a probe finds the server in order, the requests are
//! tried in halves, down to those at fault. What others' locks may cost a batch is bounded.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Ledger;
use super::batch::{Care, Decided, Params, Pending};
use super::error::{Cause, LedgerError, Trouble};
use super::row::Answer;
use crate::outcome::{Aside, Decision, Failure};
use crate::patience::Patience;

/// Tries of a statement that met a deadlock, a serialization failure or another writer's entry.
const CONTENDED_TRIES: usize = 8;

/// How long the parts of a refused statement are tried; the rest waits on a rung.
const PARTS_AT_MOST: Duration = Duration::from_secs(5);

/// The same where locks of others are in the way: the whole has waited for them already.
const LOCKED_PARTS_AT_MOST: Duration = Duration::from_millis(400);

/// Longest wait of a part for a lock. It shrinks with the time that is left, so that many locks do not use it up.
const PART_LOCK_TIMEOUT: Duration = Duration::from_millis(20);
const SHORTEST_LOCK_TIMEOUT: Duration = Duration::from_millis(2);

/// A batch on its way through the statement.
pub(super) struct Split<'a> {
    ledger: &'a Ledger,
    /// What is decided so far.
    pub decided: Decided,
    /// Since the server refused a statement: when the parts are given up.
    until: Option<Instant>,
    /// Requests that failed for want of room, and what the server lacks.
    short: Vec<((Uuid, Uuid), LedgerError)>,
}

impl<'a> Split<'a> {
    pub fn new(ledger: &'a Ledger, requests: usize) -> Self {
        Self {
            ledger,
            decided: Decided::with_capacity(requests),
            until: None,
            short: Vec::new(),
        }
    }

    /// Runs the requests in one statement, or, where a request fails it, each half by itself.
    pub async fn run(&mut self, requests: &[Pending<'_>], care: Care) -> Result<(), LedgerError> {
        // A stack with the left half on top keeps the order of delivery.
        let mut parts = vec![requests];
        while let Some(part) = parts.pop() {
            if self.is_over() {
                self.set_aside(part);
                continue;
            }
            let (failure, short) = match self.run_contended(part, care).await {
                Ok(answers) => {
                    self.decided.extend(answers);
                    continue;
                }
                Err(Trouble::Unavailable(error)) => return Err(error),
                Err(Trouble::Contended(text)) => (Failure::Unavailable(text), None),
                Err(Trouble::Refused(refused)) => {
                    self.refused(refused.cause).await?;
                    let short = (refused.cause == Cause::Writing).then_some(refused.error);
                    (refused.failure, short)
                }
            };
            if let [pending] = part {
                self.failed(pending.key(), failure, short);
            } else {
                let (left, right) = part.split_at(part.len() / 2);
                parts.extend([right, left]);
            }
        }
        Ok(())
    }

    /// What became of the requests. Where nothing could be written, the server lacks the room for it.
    pub fn finish(mut self) -> Decided {
        let writes = |decision: &Decision| matches!(decision, Decision::Decided(_));
        if !self.decided.values().any(writes) {
            for (key, error) in self.short {
                if let Some(Decision::SetAside(_, aside)) = self.decided.get_mut(&key) {
                    *aside = Aside::Server(error.to_string());
                }
            }
        }
        self.decided
    }

    /// The server refused a statement: its own fault unless it is in order without requests.
    async fn refused(&mut self, cause: Cause) -> Result<(), LedgerError> {
        if self.until.is_none() {
            self.ledger.probe().await?;
        }
        let at_most = match cause {
            Cause::Lock => LOCKED_PARTS_AT_MOST,
            Cause::Writing | Cause::Other => PARTS_AT_MOST,
        };
        let until = Instant::now() + at_most;
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
        Ok(())
    }

    fn is_over(&self) -> bool {
        // Without a rung, what is given up would have nowhere to wait.
        self.ledger.has_rungs && self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn set_aside(&mut self, part: &[Pending<'_>]) {
        let reason = "other requests of its batch met locks or failures, and it was not tried";
        for pending in part {
            let failure = Failure::Unavailable(reason.into());
            let decision = Decision::SetAside(failure, Aside::Untried);
            self.decided.insert(pending.key(), decision);
        }
    }

    fn failed(&mut self, key: (Uuid, Uuid), failure: Failure, short: Option<LedgerError>) {
        let decision = match short {
            Some(error) => {
                self.short.push((key, error));
                Decision::SetAside(failure, Aside::Room)
            }
            None => Decision::Failed(failure),
        };
        self.decided.insert(key, decision);
    }

    async fn run_contended(
        &self,
        part: &[Pending<'_>],
        mut care: Care,
    ) -> Result<Vec<Answer>, Trouble> {
        let params = Params::new(part.iter().copied());
        let mut patience = Patience::new(Duration::from_millis(2), Duration::from_millis(200));
        for _ in 1..CONTENDED_TRIES {
            match (self.run_once(&params, care).await, care) {
                // Whoever was in the way has committed, and shows to who looks.
                (Err(Trouble::Contended(_)), Care::Plain) => {
                    self.ledger.beware();
                    care = Care::Full;
                }
                (Err(Trouble::Contended(_)), Care::Full) => sleep(patience.next_wait()).await,
                (done, _) => return done,
            }
        }
        self.run_once(&params, care).await
    }

    async fn run_once(&self, params: &Params<'_>, care: Care) -> Result<Vec<Answer>, Trouble> {
        let Some(until) = self.until else {
            return self.ledger.run(params, care).await;
        };
        let left = until.saturating_duration_since(Instant::now());
        let lock_timeout = (left / 20).clamp(SHORTEST_LOCK_TIMEOUT, PART_LOCK_TIMEOUT);
        self.ledger.run_briefly(params, care, lock_timeout).await
    }
}
