//! The current status of the process: whether it consumes, the reason of a pause, messages in
//! flight, and queue depths.
//!
//! The gauges (`gauges`) and the readiness check read it on demand. The worker updates it. This
//! module knows neither broker nor database.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use reports::{Connections, Pause, QueueDepth, QueueKind};

/// Age up to which the last answer of a server counts. An idle process polls it every few seconds.
pub(super) const ANSWER_HOLDS: Duration = Duration::from_secs(20);

/// The status of a worker process, shared between the tasks that update it and those that report
/// it.
#[derive(Clone)]
pub struct ProcessStatus(pub(super) Arc<SharedStatus>);

pub(super) struct SharedStatus {
    now: Mutex<Now>,
    pub(super) connections: Box<dyn Fn() -> Connections + Send + Sync>,
}

#[derive(Default)]
pub(super) struct Now {
    pub(super) consuming: bool,
    broker: bool,
    /// When the broker last answered on the connection that polls the queues.
    broker_answered: Option<Instant>,
    paused: Option<(Pause, String)>,
    /// Workers whose messages the broker refuses at this moment.
    refused: usize,
    pub(super) database: Option<DatabaseAnswer>,
    /// Batches in flight: when each was taken, and the number of its messages.
    pub(super) in_flight: BTreeMap<u64, (Instant, usize)>,
    next: u64,
    /// When the oldest abandoned batch was taken. Reset once a batch is settled or the work queue
    /// is empty.
    given_up: Option<Instant>,
    pub(super) queues: Vec<QueueDepth>,
}

pub(super) enum DatabaseAnswer {
    Given(Instant),
    Failed(String),
}

/// A batch in flight. A drop before `settled` means that the batch was abandoned.
pub struct InFlight {
    status: ProcessStatus,
    number: u64,
    settled: bool,
}

impl InFlight {
    /// The batch is acknowledged.
    pub fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut now = self.status.now();
        let taken = now.in_flight.remove(&self.number);
        if self.settled {
            now.given_up = None;
        } else if let Some((since, _)) = taken {
            now.given_up = Some(now.given_up.map_or(since, |other| other.min(since)));
        }
    }
}

/// Marks a worker whose messages the broker refuses, until it is dropped.
pub struct PublishRefusal(ProcessStatus);

impl Drop for PublishRefusal {
    fn drop(&mut self) {
        self.0.now().refused -= 1;
    }
}

impl ProcessStatus {
    /// The status of a process that just started. `connections` counts the connections to the
    /// database.
    #[must_use]
    pub fn new(connections: impl Fn() -> Connections + Send + Sync + 'static) -> Self {
        Self(Arc::new(SharedStatus {
            now: Mutex::default(),
            connections: Box::new(connections),
        }))
    }

    /// The consumer exists now.
    pub fn consuming(&self) {
        let mut now = self.now();
        now.consuming = true;
        now.paused = None;
    }

    /// The consumer does not exist any more.
    pub fn not_consuming(&self) {
        self.now().consuming = false;
    }

    /// The process pauses because of `pause`.
    pub fn paused(&self, pause: Pause, error: &dyn fmt::Display) {
        let mut now = self.now();
        now.paused = Some((pause, error.to_string()));
        match pause {
            Pause::Database => now.database = Some(DatabaseAnswer::Failed(error.to_string())),
            // An operator's pause closes the connections on purpose.
            Pause::Broker | Pause::Operator => now.broker = false,
            Pause::Publishing => {}
        }
    }

    /// The pause is over.
    pub fn resumed(&self) {
        self.now().paused = None;
    }

    /// The broker refuses the messages of a worker, until the returned value is dropped.
    #[must_use]
    pub fn refused(&self) -> PublishRefusal {
        self.now().refused += 1;
        PublishRefusal(self.clone())
    }

    /// The pool's connections to the broker are open, or not.
    pub fn broker(&self, connected: bool) {
        self.now().broker = connected;
    }

    /// The broker answered, or failed to answer, on a connection outside the pool, which polls the
    /// queues. The pool closes its own connections while the database fails.
    pub fn broker_answered(&self, answered: bool) {
        self.now().broker_answered = answered.then(Instant::now);
    }

    /// The database answered, or failed with the given error.
    pub fn database(&self, answer: Result<(), &dyn fmt::Display>) {
        self.now().database = Some(match answer {
            Ok(()) => DatabaseAnswer::Given(Instant::now()),
            Err(error) => DatabaseAnswer::Failed(error.to_string()),
        });
    }

    /// Whether the last reported answer of the database is younger than `time`.
    #[must_use]
    pub fn database_answered_within(&self, time: Duration) -> bool {
        let now = self.now();
        matches!(&now.database, Some(DatabaseAnswer::Given(when)) if when.elapsed() < time)
    }

    /// Stores the polled queue depths. If the work queue is empty while this process consumes, its
    /// abandoned batches are in flight elsewhere or settled.
    pub fn queues(&self, queues: Vec<QueueDepth>) {
        let mut now = self.now();
        let is_empty =
            |queue: &QueueDepth| queue.kind == QueueKind::Work && queue.messages == Some(0);
        if now.consuming && queues.iter().any(is_empty) {
            now.given_up = None;
        }
        now.queues = queues;
    }

    /// Registers a batch of `messages` in flight.
    #[must_use]
    pub fn take(&self, messages: usize) -> InFlight {
        let mut now = self.now();
        let number = now.next;
        now.next += 1;
        now.in_flight.insert(number, (Instant::now(), messages));
        drop(now);
        InFlight {
            status: self.clone(),
            number,
            settled: false,
        }
    }

    /// Whether the process works: its consumer exists, and the database answered lately.
    ///
    /// # Errors
    /// If the process does not work: the reason.
    pub fn readiness(&self) -> Result<(), String> {
        let now = self.now();
        if let Some((pause, error)) = &now.paused {
            return Err(format!("paused: {pause}: {error}"));
        }
        if now.refused > 0 {
            let publishing = Pause::Publishing;
            return Err(format!(
                "paused: {publishing}: the broker refuses messages; see the log lines with the \
                event publishing_paused"
            ));
        }
        match &now.database {
            Some(DatabaseAnswer::Failed(error)) => return Err(format!("the database: {error}")),
            Some(DatabaseAnswer::Given(when)) if when.elapsed() > ANSWER_HOLDS => {
                let seconds = when.elapsed().as_secs();
                return Err(format!("the database has not answered for {seconds} s"));
            }
            Some(DatabaseAnswer::Given(_)) => {}
            None => return Err("starting: the database has not answered yet".into()),
        }
        if now.consuming {
            Ok(())
        } else {
            Err("starting: not consuming yet".into())
        }
    }

    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        // No code panics while it holds the lock. If it did, the values would still be valid.
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    pub(super) fn oldest(&self) -> Duration {
        let taken = self.in_flight.values().map(|(since, _)| *since);
        let oldest = taken.chain(self.given_up).min();
        oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the broker works, by the last reports.
    pub(super) fn broker_is_up(&self) -> bool {
        let lately = |answered: Instant| answered.elapsed() <= ANSWER_HOLDS;
        let answered = self.broker_answered.is_some_and(lately);
        self.broker || (answered && !self.is_paused(Pause::Broker))
    }

    pub(super) fn is_paused(&self, pause: Pause) -> bool {
        let by_generation = self
            .paused
            .as_ref()
            .is_some_and(|(error, _)| *error == pause);
        by_generation || (pause == Pause::Publishing && self.refused > 0)
    }
}

impl fmt::Debug for ProcessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStatus").finish_non_exhaustive()
    }
}

mod reports;
#[cfg(test)]
mod tests;
