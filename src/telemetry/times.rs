//! Histograms: how long the steps of a batch take, and how long requests wait.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::labels::{MessagingLabels, StatementLabels};

/// Buckets from a millisecond to 90 seconds, then up to an hour for requests that wait on the
/// ladder.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0,
    300.0, 900.0, 3600.0,
];

/// Histograms of a worker process. An observation takes a lock that is seldom contended.
#[derive(Debug)]
pub struct Times {
    batch_size: Histogram,
    waited: Histogram,
    settled: Histogram,
    answered: Histogram,
    process: Pair,
    publish: Pair,
    statement: Pair,
}

/// Two histograms: the times of successful and of failed operations.
#[derive(Debug)]
struct Pair {
    done: Histogram,
    failed: Histogram,
}

impl Times {
    /// Creates the histograms and registers them; `queue` is the queue that the worker consumes.
    #[must_use]
    pub fn new(registry: &mut Registry, queue: &str) -> Self {
        let process = Pair::of(
            registry,
            "messaging_process_duration_seconds",
            "Time from the start of a batch to its acknowledgement or failure",
            ["", "unsettled"].map(|error| MessagingLabels::of("process", queue, error)),
        );
        let publish = Pair::of(
            registry,
            "messaging_client_operation_duration_seconds",
            "Time from a batch's first publish to its last confirm",
            ["", "failed"].map(|error| MessagingLabels::of("publish", "", error)),
        );
        let statement = Pair::of(
            registry,
            "db_client_operation_duration_seconds",
            "Time of a batch's statement, including the wait for a connection and repetitions \
            after conflicts with other writers",
            ["", "unavailable"].map(|error| StatementLabels::of("apply", error)),
        );
        let mut single = |name: &str, help: &str, histogram: Histogram| {
            registry.register(name, help, histogram.clone());
            histogram
        };
        Self {
            batch_size: single(
                "revertd_batch_size",
                "Messages in a batch",
                Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            ),
            waited: single(
                "revertd_queue_wait_seconds",
                "Time from the AMQP timestamp of a request, if it has one (whole seconds), to \
                its first delivery",
                Histogram::new(SECONDS),
            ),
            settled: single(
                "revertd_request_duration_seconds",
                "Time from a request's first delivery to its acknowledgement, waits on the \
                ladder included",
                Histogram::new(SECONDS),
            ),
            answered: single(
                "revertd_publish_to_event_seconds",
                "Time from the AMQP timestamp of a request, if it has one (whole seconds), to \
                its acknowledgement, just after the confirm of its event",
                Histogram::new(SECONDS),
            ),
            process,
            publish,
            statement,
        }
    }

    /// Records the size of a batch.
    pub fn taken(&self, messages: usize) {
        // A batch has at most 65,535 messages.
        let size = u32::try_from(messages).unwrap_or(u32::MAX);
        self.batch_size.observe(f64::from(size));
    }

    /// Records the time from a request's AMQP timestamp to its first delivery.
    pub fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    /// Records the time of a batch's statement. `failed`: the database failed.
    pub fn decided(&self, time: Duration, failed: bool) {
        self.statement.observe(time, failed);
    }

    /// Records the time from a batch's first publish to its last confirm. `failed`: the broker
    /// failed.
    pub fn published(&self, time: Duration, failed: bool) {
        self.publish.observe(time, failed);
    }

    /// Records the time from taking a batch to settling it. `failed`: the batch was abandoned.
    pub fn processed(&self, time: Duration, failed: bool) {
        self.process.observe(time, failed);
    }

    /// Records the time from a request's first delivery to its acknowledgement.
    pub fn settled(&self, time: Duration) {
        self.settled.observe(time.as_secs_f64());
    }

    /// Records the time from a request's AMQP timestamp to its acknowledgement.
    pub fn answered(&self, time: Duration) {
        self.answered.observe(time.as_secs_f64());
    }
}

impl Pair {
    /// Registers both histograms under one name, with their labels.
    fn of<Labels>(registry: &mut Registry, name: &str, help: &str, labels: [Labels; 2]) -> Self
    where
        Labels: EncodeLabelSet + fmt::Debug + Clone + Eq + Hash + Send + Sync + 'static,
    {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let times = Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register(name, help, times.clone());
        let [done, failed] = labels.map(|labels| times.get_or_create_owned(&labels));
        Self { done, failed }
    }

    fn observe(&self, time: Duration, failed: bool) {
        let times = if failed { &self.failed } else { &self.done };
        times.observe(time.as_secs_f64());
    }
}
