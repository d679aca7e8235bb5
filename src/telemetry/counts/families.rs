//! The families of counters whose labels come from the configuration. Each series is created at the
//! start.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::telemetry::labels::{MessagingLabels, OutcomeLabels, RungLabels};

pub const REVERTED: &str = "reverted";
pub const REJECTED: &str = "rejected";
pub const DEAD_LETTERED: &str = "dead_lettered";
pub const UNROUTABLE: &str = "unroutable";

/// Label values that come from the configuration and from revertd's own enums.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The queue that the worker consumes.
    pub work_queue: String,
    /// The exchange that receives events.
    pub reply_exchange: String,
    /// The exchange that receives dead letters.
    pub dead_letter_exchange: String,
    /// The retry queues, in the order of the rungs.
    pub retry_queues: Vec<String>,
    /// The delays of the rungs, in the same order.
    pub rungs: Vec<String>,
    /// The reasons for which a request is rejected.
    pub rejected: Vec<&'static str>,
    /// The reasons for which a message is dead-lettered.
    pub dead_lettered: Vec<&'static str>,
}

pub fn requests(registry: &mut Registry, names: &Names) -> Family<OutcomeLabels, Counter> {
    let requests = Family::<OutcomeLabels, Counter>::default();
    registry.register(
        "revertd_requests",
        "Requests that were settled, by outcome: reverted, rejected or dead_lettered; a repeated \
        request counts each time",
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

pub fn retries(registry: &mut Registry, names: &Names) -> Vec<Counter> {
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

pub fn sent(registry: &mut Registry, names: &Names) -> Family<MessagingLabels, Counter> {
    let sent = Family::<MessagingLabels, Counter>::default();
    registry.register(
        "messaging_client_sent_messages",
        "Published messages: events, retries and dead letters; error_type is set if the broker \
        did not accept them",
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
