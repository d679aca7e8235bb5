use super::*;

const DECLARING: Operation<'_> = Operation::DeclaringQueue("q");
const PUBLISHING: Operation<'_> = Operation::Publishing;
const CONNECTING: Operation<'_> = Operation::Connecting;

fn soft(error: AMQPSoftError) -> AMQPErrorKind {
    AMQPErrorKind::Soft(error)
}

fn classified(kind: AMQPErrorKind, operation: Operation<'_>) -> BrokerError {
    let reply = AMQPError::new(kind, "TEXT".into());
    BrokerError::classify(&ErrorKind::ProtocolError(reply).into(), "h:1", operation)
}

#[test]
fn a_reply_is_classified_by_code_and_operation() {
    use AMQPSoftError::{ACCESSREFUSED, NOTFOUND, PRECONDITIONFAILED, RESOURCELOCKED};
    use BrokerErrorKind::{Forbidden, HostRefused, LoginRefused, Missing, Transient, Unequal};
    let not_allowed = AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED);
    let table = [
        (
            soft(ACCESSREFUSED),
            CONNECTING,
            LoginRefused,
            "the login: TEXT",
        ),
        (
            soft(ACCESSREFUSED),
            PUBLISHING,
            Forbidden,
            "while publishing: TEXT",
        ),
        (
            not_allowed.clone(),
            CONNECTING,
            HostRefused,
            "the virtual host",
        ),
        (not_allowed, DECLARING, Transient, "while declaring queue q"),
        (
            soft(PRECONDITIONFAILED),
            PUBLISHING,
            Unequal,
            "rejected a message",
        ),
        (
            soft(PRECONDITIONFAILED),
            DECLARING,
            Unequal,
            "refused an argument",
        ),
        (soft(NOTFOUND), DECLARING, Missing, "found no queue"),
        (
            soft(RESOURCELOCKED),
            DECLARING,
            Transient,
            "returned an error",
        ),
    ];
    for (reply, operation, kind, text) in table {
        let error = classified(reply, operation);
        assert_eq!(error.kind, kind, "{error}");
        assert!(
            error.diagnostic.message.starts_with("RabbitMQ at h:1 "),
            "{error}"
        );
        assert!(error.diagnostic.message.contains(text), "{error}");
    }
}

#[test]
fn the_remedy_depends_on_the_operation() {
    let remedy = |operation| {
        let error = classified(soft(AMQPSoftError::PRECONDITIONFAILED), operation);
        error.diagnostic.remedy.unwrap_or_default()
    };
    assert!(remedy(DECLARING).contains("other arguments"));
    assert!(remedy(PUBLISHING).contains("max_message_size"));
    assert_eq!(remedy(Operation::Acknowledging("q")), "");
}

#[test]
fn errors_of_two_addresses_keep_a_common_kind() {
    let refused = classified(soft(AMQPSoftError::ACCESSREFUSED), CONNECTING);
    assert!(refused.clone().and(&refused).is_login_refused());
    let mixed = refused.and(&BrokerError::silent("h:2"));
    assert!(!mixed.is_permanent());
    assert!(
        mixed
            .to_string()
            .contains(": TEXT, and RabbitMQ at h:2 does not answer; check")
    );
}
