//! Warns about risky values of a valid configuration.

use std::time::Duration;

use crate::common::check::Checks;
use crate::config::Settings;

/// A shutdown timeout below this leaves many requests unfinished, and they are redelivered.
const SHORT: Duration = Duration::from_secs(5);

/// A queue name that no pattern should allow.
const SOME_QUEUE: &str = "some.queue.of.somebody.else";

pub fn check(settings: &Settings) -> Checks {
    let mut checks = Checks::default();
    checks.ok(
        "configuration",
        format!(
            "every key is known and has a valid value; read: {}",
            settings.sources
        ),
    );
    let pattern = &settings.amqp.reply_to_pattern;
    let id = "config-reply-to-pattern";
    if pattern.allows(SOME_QUEUE) {
        checks.warning(
            id,
            format!(
                "amqp.reply_to_pattern ({pattern}) matches any queue: a client can have events put \
                 into queues of other applications"
            ),
            "begin it with ^ and a prefix that only reply queues have, as ^(amq\\.gen-|replies\\.)",
        );
    } else if let Some(own) = settings
        .own_queues()
        .iter()
        .find(|name| pattern.allows(name))
    {
        checks.warning(
            id,
            format!(
                "amqp.reply_to_pattern ({pattern}) matches {own}, a queue of revertd, to which it \
                 never replies"
            ),
            "narrow it to reply queues, as ^(amq\\.gen-|replies\\.)",
        );
    } else {
        checks.ok(id, format!("replies go to queues that match {pattern}"));
    }
    let (id, stop) = ("config-shutdown-timeout", settings.worker.shutdown_timeout);
    let shown = humantime::format_duration(stop);
    if stop < SHORT {
        checks.warning(
            id,
            format!(
                "worker.shutdown_timeout is {shown}: a stop leaves batches unfinished, and their \
                 requests are redelivered"
            ),
            "raise it to 30s, and give the process longer than that before it is killed",
        );
    } else {
        checks.ok(
            id,
            format!("a stop may take {shown}; wait longer before the process is killed"),
        );
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::check::CheckStatus;

    #[test]
    fn a_valid_but_unwise_setting_is_a_warning() {
        for (key, value, id) in [
            ("AMQP__REPLY_TO_PATTERN", ".*", "config-reply-to-pattern"),
            (
                "AMQP__REPLY_TO_PATTERN",
                "^usage",
                "config-reply-to-pattern",
            ),
            ("WORKER__SHUTDOWN_TIMEOUT", "1s", "config-shutdown-timeout"),
        ] {
            let set = (format!("REVERTD_{key}"), value.to_owned());
            let settings = Settings::load_from(None, [set]).expect("valid");
            let checks = check(&settings);
            let warned: Vec<_> = checks
                .iter()
                .filter(|check| check.status == CheckStatus::Warning)
                .map(|check| check.id)
                .collect();
            assert_eq!(warned, [id], "{value}");
        }
        let settings = Settings::load_from(None, []).expect("valid");
        assert_eq!(check(&settings).count(CheckStatus::Ok), 3);
    }
}
