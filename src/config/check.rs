//! Checks for contradictions between keys that are valid by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::SettingsError;
use super::settings::Settings;
use crate::common::diagnostic::Diagnostic;

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let positive = [
            ("worker.concurrency", u64::from(self.worker.concurrency)),
            ("worker.batch_max", u64::from(self.worker.batch_max)),
            ("worker.max_crashes", u64::from(self.worker.max_crashes)),
            (
                "amqp.max_bytes_in_hand",
                self.amqp.max_bytes_in_hand.bytes(),
            ),
            (
                "amqp.max_message_bytes",
                self.amqp.max_message_bytes.bytes(),
            ),
            ("amqp.max_group", u64::from(self.amqp.max_group)),
            ("amqp.max_group_bytes", self.amqp.max_group_bytes.bytes()),
            ("amqp.prefetch", u64::from(self.prefetch())),
            (
                "gateway.max_in_flight",
                u64::from(self.gateway.max_in_flight),
            ),
            ("database.pool_size", u64::from(self.pool_size())),
            (
                "topology.work_queue_max_bytes",
                self.topology.work_queue_max_bytes.bytes(),
            ),
            (
                "topology.retry_queue_max_bytes",
                self.topology.retry_queue_max_bytes.bytes(),
            ),
            (
                "topology.reply_queue_max_bytes",
                self.topology.reply_queue_max_bytes.bytes(),
            ),
            (
                "topology.denied_queue_max_bytes",
                self.topology.denied_queue_max_bytes.bytes(),
            ),
            (
                "topology.dead_letter_queue_max_bytes",
                self.topology.dead_letter_queue_max_bytes.bytes(),
            ),
        ];
        for (key, value) in positive {
            if value == 0 {
                return invalid(format!("{key} is 0"), "it must be at least 1");
            }
            if i64::try_from(value).is_err() {
                return invalid(format!("{key} is too large"), "it must fit an int64");
            }
        }
        let (prefetch, batch_max) = (self.prefetch(), self.worker.batch_max);
        if prefetch < batch_max {
            let text = format!(
                "amqp.prefetch ({prefetch}) is less than worker.batch_max ({batch_max}), so no \
                 batch can become full"
            );
            return invalid(text, "raise the first or lower the second");
        }
        let (pool, concurrency) = (self.pool_size(), self.worker.concurrency);
        if pool < concurrency {
            let text = format!(
                "database.pool_size ({pool}) is less than worker.concurrency ({concurrency}), so \
                 workers would wait for each other"
            );
            return invalid(text, "raise the first or lower the second");
        }
        if self.retry.delays.is_empty() && self.retry.usage_not_found_attempts > 0 {
            let attempts = self.retry.usage_not_found_attempts;
            let text =
                format!("retry.usage_not_found_attempts is {attempts}, but retry.delays is empty");
            return invalid(text, "add a delay or set the first to 0");
        }
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(30));
        if self.database.lock_timeout < shortest || self.database.lock_timeout > longest {
            let text = "database.lock_timeout is out of range";
            return invalid(text, "it must be from 1ms to 30s");
        }
        // PostgreSQL subtracts the age from its clock, so the age is bounded.
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_hours(24 * 36_525));
        if self
            .revert
            .max_age
            .is_some_and(|age| age < shortest || age > longest)
        {
            return invalid(
                "revert.max_age is out of range",
                "it must be from 1ms to 100 years; leave it out for no limit",
            );
        }
        if self.amqp.trusted_users.iter().any(String::is_empty) {
            return invalid(
                "amqp.trusted_users names an empty login",
                "name users of the broker",
            );
        }
        self.check_gateway()?;
        self.check_names()
    }

    fn check_gateway(&self) -> Result<(), SettingsError> {
        let gateway = &self.gateway;
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_hours(1));
        if gateway.timeout < shortest || gateway.timeout > longest {
            return invalid(
                "gateway.timeout is out of range",
                "it must be from 1ms to 1h",
            );
        }
        let (missing, given) = match (&gateway.cert_file, &gateway.key_file) {
            (Some(_), None) => ("gateway.key_file", "gateway.cert_file"),
            (None, Some(_)) => ("gateway.cert_file", "gateway.key_file"),
            (Some(_), Some(_)) | (None, None) => return Ok(()),
        };
        invalid(
            format!("{given} is set, but {missing} is not"),
            "set both to serve over TLS, or neither",
        )
    }

    fn check_names(&self) -> Result<(), SettingsError> {
        let mut names = BTreeSet::new();
        let topology = &self.topology;
        let queues = [
            topology.work_queue.as_str().to_owned(),
            topology.reply_queue.as_str().to_owned(),
            topology.denied_queue.as_str().to_owned(),
            topology.dead_letter_queue.as_str().to_owned(),
        ];
        for queue in queues.into_iter().chain(self.retry_queues()) {
            if !names.insert(queue.clone()) {
                return invalid(
                    format!("two queues would be named {queue}"),
                    "give each its own name (retry.delays must not repeat a delay)",
                );
            }
        }
        let exchanges = [
            topology.request_exchange.as_str(),
            topology.alternate_exchange.as_str(),
            topology.reply_exchange.as_str(),
            topology.dead_letter_exchange.as_str(),
        ];
        if exchanges.iter().collect::<BTreeSet<_>>().len() < exchanges.len() {
            return invalid(
                "two of the four exchanges under topology have the same name",
                "give each its own name",
            );
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>, remedy: &str) -> Result<(), SettingsError> {
    Err(SettingsError(Diagnostic::new(message).remedy(remedy)))
}
