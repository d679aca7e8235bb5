//! Counters since the start of the process. The last log line of the process shows the same
//! counters.
//!
//! Names follow OpenTelemetry's conventions for messaging if those define one, in Prometheus'
//! spelling; the others begin with `revertd_`. Each series exists from the start, so that `rate()`
//! counts the first event too.

use std::fmt;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::{MessagingLabels, OutcomeLabels, ReplayLabels};
use families::{DEAD_LETTERED, REJECTED, REVERTED, UNROUTABLE, requests, retries, sent};

mod families;

pub use families::Names;

/// Counters of a worker process. An increment is one atomic addition; if the labels vary, a look-up
/// precedes it.
#[derive(Debug)]
pub struct Counters {
    requests: Family<OutcomeLabels, Counter>,
    reverted: Counter,
    retries: Vec<Counter>,
    redeliveries: Counter,
    groups: Counter,
    group_requests: Counter,
    outcomes_repeated: Counter,
    dead_letters_replayed: Counter,
    copies_failed: Counter,
    reply_to_refused: Counter,
    untrusted: Counter,
    waits: Counter,
    letters_dropped: Counter,
    events_undelivered: Counter,
    consumed: Counter,
    consumed_bytes: Counter,
    sent: Family<MessagingLabels, Counter>,
    exports_failed: Counter,
    names: Names,
}

impl Counters {
    /// Creates the counters and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry, names: Names) -> Self {
        let requests = requests(registry, &names);
        let consumed = Family::<MessagingLabels, Counter>::default();
        registry.register(
            "messaging_client_consumed_messages",
            "Messages delivered from the work queue, redeliveries included",
            consumed.clone(),
        );
        let replays = Family::<ReplayLabels, Counter>::default();
        registry.register(
            "revertd_replays",
            "Repeated requests: answered with a stored outcome (of=\"outcome\"), or replayed by \
            `revertd dead-letters replay` (of=\"dead_letter\"); a request may count as both",
            replays.clone(),
        );
        let replays = |of| replays.get_or_create_owned(&ReplayLabels { of });
        let (outcomes_repeated, dead_letters_replayed) =
            (replays("outcome"), replays("dead_letter"));
        let mut single = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            outcomes_repeated,
            dead_letters_replayed,
            groups: single(
                "revertd_groups",
                "Groups that were settled; a repeated group counts each time, one that waits or \
                is dead-lettered as a whole does not count",
            ),
            group_requests: single(
                "revertd_group_requests",
                "Requests of the groups that were settled; each counts by its outcome, too",
            ),
            redeliveries: single(
                "revertd_redeliveries",
                "Deliveries with the flag redelivered",
            ),
            copies_failed: single(
                "revertd_reply_copies_failed",
                "Copies of events that could not be delivered to a request's reply_to",
            ),
            reply_to_refused: single(
                "revertd_reply_to_refused",
                "Requests whose reply_to names a queue of revertd, or a queue that \
                amqp.reply_to_pattern does not allow; no copy is sent",
            ),
            untrusted: single(
                "revertd_untrusted_waits",
                "Messages that wait on a rung because they name a client (x-client), and the \
                login that published them is not in amqp.trusted_users",
            ),
            waits: single(
                "revertd_waits",
                "Requests that were put on a rung without counting an attempt: a queue refused \
                their messages, or they were not tried",
            ),
            letters_dropped: single(
                "revertd_letters_dropped",
                "Dead letters of malformed requests that were dropped because the dead-letter \
                queue refused them; their events were published",
            ),
            events_undelivered: single(
                "revertd_events_undelivered",
                "Events that a subscriber's queue still refused after the last rung; they are in \
                revertd's own reply queue",
            ),
            consumed_bytes: single(
                "revertd_consumed_bytes",
                "Bytes of the bodies of messages delivered from the work queue",
            ),
            exports_failed: single(
                "revertd_trace_exports_failed",
                "Batches of spans that were dropped because the collector did not accept \
                them",
            ),
            consumed: consumed.get_or_create_owned(&MessagingLabels::of(
                "consume",
                &names.work_queue,
                "",
            )),
            reverted: requests.get_or_create_owned(&OutcomeLabels::of(REVERTED, "")),
            requests,
            retries: retries(registry, &names),
            sent: sent(registry, &names),
            names,
        }
    }

    /// Counts a batch of `messages` deliveries, whose bodies have `bytes` bytes in total.
    pub fn taken(&self, messages: usize, bytes: usize) {
        self.consumed.inc_by(messages as u64);
        self.consumed_bytes.inc_by(bytes as u64);
    }

    /// Counts a delivery with the `redelivered` flag.
    pub fn redelivered(&self) {
        self.redeliveries.inc();
    }

    /// Counts `requests` that were answered with outcomes that the ledger already held.
    pub fn repeated(&self, requests: usize) {
        self.outcomes_repeated.inc_by(requests as u64);
    }

    /// Counts settled groups, and the `requests` of all of them.
    pub fn groups(&self, groups: usize, requests: usize) {
        self.groups.inc_by(groups as u64);
        self.group_requests.inc_by(requests as u64);
    }

    /// Counts a message that an operator replayed from the dead-letter queue.
    pub fn replayed(&self) {
        self.dead_letters_replayed.inc();
    }

    /// Counts `messages` that were published to `destination`, a queue or an exchange of the
    /// configuration. `error` names the broker's answer if it did not accept them; otherwise it is
    /// empty.
    pub fn sent(&self, destination: &str, error: &'static str, messages: u64) {
        let labels = MessagingLabels::of("publish", destination, error);
        self.sent.get_or_create(&labels).inc_by(messages);
    }

    /// Counts a request that was answered with its revert.
    pub fn reverted(&self) {
        self.reverted.inc();
    }

    /// Counts a request that was rejected.
    pub fn rejected(&self, reason: &'static str) {
        let labels = OutcomeLabels::of(REJECTED, reason);
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a message that was dead-lettered.
    pub fn dead_lettered(&self, reason: &'static str) {
        let labels = OutcomeLabels::of(DEAD_LETTERED, reason);
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a request that was put on a rung.
    pub fn retried(&self, rung: usize) {
        if let Some(retries) = self.retries.get(rung) {
            retries.inc();
        }
    }

    /// Counts a message that waits because its `user_id` is not a trusted login.
    pub fn untrusted(&self) {
        self.untrusted.inc();
    }

    /// Counts a request that was put on a rung without counting an attempt.
    pub fn waited(&self) {
        self.waits.inc();
    }

    /// Counts a malformed request that was settled without its dead letter.
    pub fn letter_dropped(&self) {
        self.letters_dropped.inc();
    }

    /// Counts an event that only revertd's own queue holds.
    pub fn event_undelivered(&self) {
        self.events_undelivered.inc();
    }

    /// Counts a copy to a `reply_to` that was not delivered.
    pub fn copy_failed(&self) {
        self.copies_failed.inc();
    }

    /// Counts a request whose `reply_to` is not allowed.
    pub fn reply_to_refused(&self) {
        self.reply_to_refused.inc();
    }

    /// The counter of failed exports, for the span exporter.
    #[must_use]
    pub fn exports_failed(&self) -> Counter {
        self.exports_failed.clone()
    }

    fn outcomes(&self, outcome: &'static str, reasons: &[&'static str]) -> u64 {
        let of = |reason: &&'static str| {
            let counter = self.requests.get(&OutcomeLabels::of(outcome, reason));
            counter.map_or(0, |counter| counter.get())
        };
        reasons.iter().map(of).sum()
    }
}

/// The counts of a process, for its last log line.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = &self.names;
        let unroutable = MessagingLabels::of("publish", &names.reply_exchange, UNROUTABLE);
        write!(
            f,
            "reverted={} rejected={} retried={} dead_lettered={} redelivered={} unroutable={} \
            replies_failed={}",
            self.reverted.get(),
            self.outcomes(REJECTED, &names.rejected),
            self.retries.iter().map(Counter::get).sum::<u64>(),
            self.outcomes(DEAD_LETTERED, &names.dead_lettered),
            self.redeliveries.get(),
            self.sent.get_or_create(&unroutable).get(),
            self.copies_failed.get() + self.reply_to_refused.get(),
        )
    }
}
