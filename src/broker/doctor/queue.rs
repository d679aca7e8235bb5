//! Whether a queue, as its arguments and policies together make it, keeps what is in it.
//!
//! Pure: it judges an answer of the management API, and must not know how that is got.

use std::time::Duration;

use crate::common::check::Checks;
use crate::config::Settings;
use value::ValueSource;

mod info;
mod value;

pub use info::{QueueInfo, QueueRole};

/// Longest that a delivery may be in hand: a batch decides for two minutes at the worst and is
/// refused by the broker for ten, and it waits for the batch before.
const LONGEST_IN_HAND: Duration = Duration::from_mins(24);

/// A broker's own limit where a queue has none, since 4.0.
const DELIVERY_LIMIT_OF_4: i64 = 20;

/// Deliveries that somebody may need who reads a queue again and again.
const READS: i64 = 1000;

/// What of the broker counts for its queues.
pub struct BrokerInfo {
    delivery_limit: Option<i64>,
}

impl BrokerInfo {
    pub fn of(version: &str) -> Self {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        let has_limit = major.is_some_and(|major: u32| major >= 4);
        Self {
            delivery_limit: has_limit.then_some(DELIVERY_LIMIT_OF_4),
        }
    }
}

impl QueueInfo<'_> {
    pub fn check(
        &self,
        id: &'static str,
        broker: &BrokerInfo,
        settings: &Settings,
        checks: &mut Checks,
    ) {
        let mut found = Checks::default();
        self.keeps(id, &mut found);
        self.delivers(id, broker, &mut found);
        match self.role {
            QueueRole::Work => {
                self.dead_letters(id, None, &mut found);
                self.waits(&mut found);
            }
            QueueRole::Rung { delay_ms } => {
                self.dead_letters(id, Some(settings.topology.work_queue.as_str()), &mut found);
                let (ttl, source) = match self.number("message-ttl") {
                    Some((ttl, source)) => (Some(ttl), source),
                    None => (None, ValueSource::Queue),
                };
                if ttl.and_then(|ttl| u128::try_from(ttl).ok()) != Some(delay_ms) {
                    let seen = format!(
                        "{self} keeps a message for {}, not for {delay_ms} ms",
                        shown(ttl, "ever")
                    );
                    found.error(id, seen, source.remedy());
                }
            }
            QueueRole::Dead => self.refuses_when_full(id, &mut found),
            QueueRole::Replies => {}
        }
        if found.iter().all(|check| check.id != id) {
            let full = match self.role {
                // Its events are also in the database, and the queue may have no reader.
                QueueRole::Replies => "drops its oldest events when it is full, as it is meant to",
                QueueRole::Work | QueueRole::Rung { .. } | QueueRole::Dead => "loses nothing",
            };
            checks.ok(id, format!("{self} is a durable quorum queue, and {full}"));
        }
        checks.append(found);
    }

    /// That it survives, and so does what is in it.
    fn keeps(&self, id: &'static str, found: &mut Checks) {
        let kind = self.answer["type"].as_str().unwrap_or("unknown");
        if kind != "quorum" {
            let seen = format!(
                "{self} is of type {kind}: what it dead-letters may be lost, and it may be on one \
                node alone"
            );
            found.error(id, seen, ValueSource::Queue.remedy());
        }
        let yes = |key: &str| self.answer[key].as_bool() == Some(true);
        if !yes("durable") || yes("auto_delete") || yes("exclusive") {
            let seen = format!("{self} goes with the broker's restart, or with who consumes it");
            found.error(id, seen, ValueSource::Queue.remedy());
        }
        if let Some((_, source)) = self.number("expires") {
            let seen = format!(
                "{self} is deleted with its messages when it is unused for a while (expires)"
            );
            found.error(id, seen, source.remedy());
        }
        if self
            .number("max-length-bytes")
            .or(self.number("max-length"))
            .is_none()
        {
            let remedy = "set x-max-length-bytes, or max-length-bytes in a policy";
            found.warning(
                id,
                format!("{self} has no bound: a backlog can fill the broker's disk"),
                remedy,
            );
        }
        if let (Some((ttl, source)), false) = (
            self.number("message-ttl"),
            matches!(self.role, QueueRole::Rung { .. }),
        ) {
            let seen = format!("{self} drops what is older than {ttl} ms (message-ttl)");
            match self.role {
                QueueRole::Dead => found.error(id, seen, source.remedy()),
                _ => found.warning(id, seen, source.remedy()),
            }
        }
        let count = |key: &str| self.answer[key].as_array().map(Vec::len);
        if let (Some(members), Some(online)) = (count("members"), count("online")) {
            let seen = format!("{online} of the {members} members of {self} are online");
            let remedy = "start the nodes of the others, or move it: rabbitmq-queues grow, shrink";
            if online * 2 <= members {
                found.error(id, format!("{seen}: it takes and gives nothing"), remedy);
            } else if online < members {
                found.warning(id, seen, remedy);
            }
        }
    }

    /// That it delivers as often as it has to.
    fn delivers(&self, id: &'static str, broker: &BrokerInfo, found: &mut Checks) {
        let own = self.number("delivery-limit").map(|(limit, _)| limit);
        let limit = own.or(broker.delivery_limit);
        // Negative: none.
        let Some(limit) = limit.filter(|limit| *limit >= 0) else {
            return;
        };
        match self.role {
            QueueRole::Work if limit < READS => found.error(
                id,
                format!(
                    "{self} gives a message up after {limit} deliveries, and each failure of a \
                    process or a server is one for all that it holds"
                ),
                "raise its delivery-limit in arguments and policies, to 1000000000 as `revertd \
                worker` declares it: 4.0 and later have 20 where none is set",
            ),
            QueueRole::Dead | QueueRole::Replies if limit < READS => found.warning(
                id,
                format!("{self} gives a message up that was looked at {limit} times"),
                "raise its delivery-limit in arguments and policies: 4.0 and later have 20 where \
                none is set",
            ),
            QueueRole::Work | QueueRole::Rung { .. } | QueueRole::Dead | QueueRole::Replies => {}
        }
    }

    /// That what it gives up is kept; with `to`, in that queue.
    fn dead_letters(&self, id: &'static str, to: Option<&str>, found: &mut Checks) {
        let Some((exchange, of_exchange)) = self.text("dead-letter-exchange") else {
            let seen = format!(
                "{self} has no dead-letter exchange: what the worker rejects or the broker gives \
                up is dropped"
            );
            found.error(id, seen, ValueSource::Queue.remedy());
            return;
        };
        if let Some(to) = to {
            let key = self.text("dead-letter-routing-key");
            let (key, of_key) = key.unwrap_or(("", ValueSource::Queue));
            let problems = [(!exchange.is_empty(), of_exchange), (key != to, of_key)];
            if let Some((_, source)) = problems.iter().find(|(problems, _)| *problems) {
                let seen = format!("{self} does not lead back to {to}");
                found.error(id, seen, source.remedy());
            }
        }
        let strategy = self.text("dead-letter-strategy");
        let (strategy, source) = strategy.unwrap_or(("at-most-once", ValueSource::Queue));
        if strategy != "at-least-once" {
            let seen = format!(
                "{self} dead-letters {strategy}: a letter is lost that its queue does not take"
            );
            found.error(id, seen, source.remedy());
        }
        self.refuses_when_full(id, found);
    }

    /// Without it at-least-once becomes at-most-once in silence, and the oldest go where there is a
    /// bound.
    fn refuses_when_full(&self, id: &'static str, found: &mut Checks) {
        for (overflow, source) in self.overflows() {
            if overflow != "reject-publish" {
                let by = match source {
                    ValueSource::Policy => "by a policy",
                    ValueSource::Queue => "of its own",
                };
                let seen = format!(
                    "{self} has overflow {overflow} {by}: when it is full it drops messages"
                );
                found.error(id, seen, source.remedy());
            }
        }
    }

    /// That the broker leaves a worker the time it may need.
    fn waits(&self, found: &mut Checks) {
        let id = "amqp-consumer-timeout";
        let needed = LONGEST_IN_HAND.as_millis();
        match self.number("consumer-timeout").map(|(given, _)| given) {
            None => found.skipped_until(
                id,
                format!(
                    "{self} has no consumer timeout of its own, and no API shows the broker's (30 \
                    minutes unless set); it must be more than {} minutes",
                    needed / 60_000
                ),
                "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'",
            ),
            Some(given) if u128::try_from(given).is_ok_and(|given| given <= needed) => found
                .warning(
                    id,
                    format!(
                        "the broker takes back from {self} what was not acknowledged for {given} \
                    ms"
                    ),
                    format!(
                        "raise consumer-timeout to more than {needed} ms: a batch that waits for \
                    a full queue may take that long"
                    ),
                ),
            Some(given) => found.ok(id, format!("{self} leaves a worker {given} ms")),
        }
    }
}

impl std::fmt::Display for QueueInfo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the queue {}", self.name)
    }
}

fn shown(number: Option<i64>, none: &str) -> String {
    number.map_or_else(|| none.to_owned(), |number| format!("{number} ms"))
}

#[cfg(test)]
mod tests;
