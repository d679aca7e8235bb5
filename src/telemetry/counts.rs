//! Counters: what was done since the start of the process. The line that ends it reads the same ones.
//!
//! Names follow OpenTelemetry's conventions for messaging where they have one, in Prometheus' spelling; the others begin
//! with `revertd_`. Each series is there from the start, so that a rate is one from the first event on.

use std::fmt;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::{MessagingLabels, OutcomeLabels, ReplayLabels, RungLabels};

const REVERTED: &str = "reverted";
const REJECTED: &str = "rejected";
const DEAD_LETTERED: &str = "dead_lettered";
const UNROUTABLE: &str = "unroutable";

/// What names the configuration, and our own enums, give to the values of labels.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The queue that is consumed.
    pub work_queue: String,
    /// Where events go.
    pub reply_exchange: String,
    /// Where dead letters go.
    pub dead_letter_exchange: String,
    /// The retry queues, by rung.
    pub retry_queues: Vec<String>,
    /// Their delays.
    pub rungs: Vec<String>,
    /// Reasons of rejections.
    pub rejected: Vec<&'static str>,
    /// Reasons of dead letters.
    pub dead_lettered: Vec<&'static str>,
}

/// Counters of a worker process. One more is an atomic addition, where its labels vary after a look-up.
#[derive(Debug)]
pub struct Counters {
    requests: Family<OutcomeLabels, Counter>,
    reverted: Counter,
    retries: Vec<Counter>,
    redeliveries: Counter,
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
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry, names: Names) -> Self {
        let requests = requests(registry, &names);
        let consumed = Family::<MessagingLabels, Counter>::default();
        registry.register(
            "messaging_client_consumed_messages",
            "Messages that were taken off the work queue, redeliveries included",
            consumed.clone(),
        );
        let replays = Family::<ReplayLabels, Counter>::default();
        registry.register(
            "revertd_replays",
            "Requests that came again: answered by the outcome that was stored before (of=\"outcome\"), or published again by \
             revertd dead-letters replay (of=\"dead_letter\"); one may be both",
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
            redeliveries: single(
                "revertd_redeliveries",
                "Messages that came although they had been delivered before",
            ),
            copies_failed: single(
                "revertd_reply_copies_failed",
                "Copies to a request's reply_to that did not arrive",
            ),
            reply_to_refused: single(
                "revertd_reply_to_refused",
                "Requests whose reply_to is not allowed by amqp.reply_to_pattern, or is a queue of revertd's own: no copy is sent",
            ),
            untrusted: single(
                "revertd_untrusted_waits",
                "Messages that were put to wait because the login that names their client is not in amqp.trusted_users",
            ),
            waits: single(
                "revertd_waits",
                "Requests that were put on a rung without an attempt being counted: what came of them was refused by a queue, \
                 or they were not tried",
            ),
            letters_dropped: single(
                "revertd_letters_dropped",
                "Dead letters of malformed requests that the dead-letter queue refused; they are lost, their events are not",
            ),
            events_undelivered: single(
                "revertd_events_undelivered",
                "Events that a subscriber's queue refused to the end; they are in revertd's own queue",
            ),
            consumed_bytes: single(
                "revertd_consumed_bytes",
                "Bodies of the messages that were taken off the work queue, in bytes",
            ),
            exports_failed: single(
                "revertd_trace_exports_failed",
                "Batches of spans that the collector did not take; they are dropped",
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

    /// A batch was taken: so many messages, of so many bytes together.
    pub fn taken(&self, messages: usize, bytes: usize) {
        self.consumed.inc_by(messages as u64);
        self.consumed_bytes.inc_by(bytes as u64);
    }

    /// One of them had been delivered before.
    pub fn redelivered(&self) {
        self.redeliveries.inc();
    }

    /// So many requests were answered by outcomes that were stored before.
    pub fn repeated(&self, requests: usize) {
        self.outcomes_repeated.inc_by(requests as u64);
    }

    /// A message was a dead letter before.
    pub fn replayed(&self) {
        self.dead_letters_replayed.inc();
    }

    /// So many messages went to a queue or an exchange of the configuration. `error`: what the broker did instead of
    /// taking them.
    pub fn sent(&self, destination: &str, error: &'static str, messages: u64) {
        let labels = MessagingLabels::of("publish", destination, error);
        self.sent.get_or_create(&labels).inc_by(messages);
    }

    /// A request was answered with its revert.
    pub fn reverted(&self) {
        self.reverted.inc();
    }

    /// A request was refused.
    pub fn rejected(&self, reason: &'static str) {
        let labels = OutcomeLabels::of(REJECTED, reason);
        self.requests.get_or_create(&labels).inc();
    }

    /// A message was dead-lettered.
    pub fn dead_lettered(&self, reason: &'static str) {
        let labels = OutcomeLabels::of(DEAD_LETTERED, reason);
        self.requests.get_or_create(&labels).inc();
    }

    /// A request was put on a rung.
    pub fn retried(&self, rung: usize) {
        if let Some(retries) = self.retries.get(rung) {
            retries.inc();
        }
    }

    /// A message waits for the login that names its client to be trusted.
    pub fn untrusted(&self) {
        self.untrusted.inc();
    }

    /// A request was put on a rung, and no attempt was counted.
    pub fn waited(&self) {
        self.waits.inc();
    }

    /// A malformed request was settled without its dead letter.
    pub fn letter_dropped(&self) {
        self.letters_dropped.inc();
    }

    /// An event is in revertd's own queue alone.
    pub fn event_undelivered(&self) {
        self.events_undelivered.inc();
    }

    /// A copy to a `reply_to` did not arrive.
    pub fn copy_failed(&self) {
        self.copies_failed.inc();
    }

    /// A request's `reply_to` is not allowed.
    pub fn reply_to_refused(&self) {
        self.reply_to_refused.inc();
    }

    /// The counter of exports that failed, for who exports.
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

/// The counts of a process, for the line that ends it.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = &self.names;
        let unroutable = MessagingLabels::of("publish", &names.reply_exchange, UNROUTABLE);
        write!(
            f,
            "reverted={} rejected={} retried={} dead_lettered={} redelivered={} unroutable={} replies_failed={}",
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

fn requests(registry: &mut Registry, names: &Names) -> Family<OutcomeLabels, Counter> {
    let requests = Family::<OutcomeLabels, Counter>::default();
    registry.register(
        "revertd_requests",
        "Requests that were settled with an outcome: reverted, rejected or dead_lettered; one that is answered again counts \
         again",
        requests.clone(),
    );
    for (outcome, reasons) in [
        (REJECTED, &names.rejected),
        (DEAD_LETTERED, &names.dead_lettered),
    ] {
        for reason in reasons {
            drop(requests.get_or_create(&OutcomeLabels::of(outcome, reason)));
        }
    }
    requests
}

fn retries(registry: &mut Registry, names: &Names) -> Vec<Counter> {
    let retries = Family::<RungLabels, Counter>::default();
    registry.register(
        "revertd_retries",
        "Requests that were put on a rung of the retry ladder",
        retries.clone(),
    );
    let rungs = names.rungs.iter().cloned();
    rungs
        .map(|rung| retries.get_or_create_owned(&RungLabels { rung }))
        .collect()
}

fn sent(registry: &mut Registry, names: &Names) -> Family<MessagingLabels, Counter> {
    let sent = Family::<MessagingLabels, Counter>::default();
    registry.register(
        "messaging_client_sent_messages",
        "Messages that were published: events, retries and dead letters; refused ones are published again",
        sent.clone(),
    );
    let exchanges = [&names.reply_exchange, &names.dead_letter_exchange];
    for name in exchanges.into_iter().chain(&names.retry_queues) {
        for error in ["", UNROUTABLE, "refused"] {
            drop(sent.get_or_create(&MessagingLabels::of("publish", name, error)));
        }
    }
    sent
}
