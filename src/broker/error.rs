//! What can go wrong with the broker, told apart where it arises: by kind and reply code, never by text.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::common::tls::{Fault, fault};

/// The broker can't work at present. Says what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    message: String,
    kind: BrokerErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BrokerErrorKind {
    Transient,
    Permanent,
    LoginRefused,
    HostRefused,
    Forbidden,
    Missing,
    Unequal,
    Blocked,
}

impl BrokerError {
    /// Something that may mend itself.
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        let (message, kind) = (message.into(), BrokerErrorKind::Transient);
        Self { message, kind }
    }

    /// Something that stays wrong until somebody mends it.
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        let (message, kind) = (message.into(), BrokerErrorKind::Permanent);
        Self { message, kind }
    }

    fn unequal(message: String) -> Self {
        let kind = BrokerErrorKind::Unequal;
        Self { message, kind }
    }

    pub(crate) fn silent(host: &str) -> Self {
        Self::transient(format!(
            "RabbitMQ at {host} does not answer; check the server, its memory and disk alarms \
             (rabbitmq-diagnostics alarms) and the network"
        ))
    }

    pub(crate) fn blocked(host: &str, why: &str) -> Self {
        Self {
            message: format!(
                "RabbitMQ at {host} takes no messages: {why}; see rabbitmq-diagnostics alarms, and free \
                 memory or disk space on its server"
            ),
            kind: BrokerErrorKind::Blocked,
        }
    }

    pub(crate) fn ended(queue: &str) -> Self {
        Self::transient(format!(
            "the broker stopped delivering from {queue}: the queue was deleted, or an acknowledgement \
             took longer than its consumer_timeout"
        ))
    }

    /// This and what another address answered: lasting only if both are.
    pub(crate) fn and(self, other: &Self) -> Self {
        let kind = if self.kind == other.kind {
            self.kind
        } else {
            BrokerErrorKind::Transient
        };
        Self {
            message: format!("{}; and {}", self.message, other.message),
            kind,
        }
    }

    /// Whether waiting alone won't mend it.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self.kind,
            BrokerErrorKind::Permanent
                | BrokerErrorKind::LoginRefused
                | BrokerErrorKind::HostRefused
                | BrokerErrorKind::Forbidden
                | BrokerErrorKind::Missing
                | BrokerErrorKind::Unequal
        )
    }

    /// Whether the broker knows no user of that name and password.
    pub(crate) fn is_login_refused(&self) -> bool {
        self.kind == BrokerErrorKind::LoginRefused
    }

    /// Whether the broker knows the user, and keeps it from the virtual host.
    pub(crate) fn is_host_refused(&self) -> bool {
        self.kind == BrokerErrorKind::HostRefused
    }

    /// Whether the broker's user lacks a permission.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.kind == BrokerErrorKind::Forbidden
    }

    /// Whether something that was named is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.kind == BrokerErrorKind::Missing
    }

    /// Whether something that was declared, or an argument, is not as the broker would have it.
    pub(crate) fn is_unequal(&self) -> bool {
        self.kind == BrokerErrorKind::Unequal
    }

    /// Whether the broker takes no messages, and says when it does again.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.kind == BrokerErrorKind::Blocked
    }

    /// Classifies an error of the client or the broker. `doing` says what failed, with names.
    pub(crate) fn classify(error: &Error, host: &str, doing: &str) -> Self {
        let at = format!("RabbitMQ at {host}");
        if let Some(Fault { what, lasting }) = fault(error, "amqp") {
            let kind = if lasting {
                BrokerErrorKind::Permanent
            } else {
                BrokerErrorKind::Transient
            };
            let message = format!("{at} {what}");
            return Self { message, kind };
        }
        match error.kind() {
            // Nothing was delivered yet: what came is no AMQP.
            ErrorKind::ParsingError(_) if doing == "connecting" => Self::permanent(format!(
                "{at} answers with something else than AMQP; correct host and port in amqp.url, or write \
                 amqps:// if this is a port that speaks TLS"
            )),
            ErrorKind::ParsingError(_) => Self::transient(format!(
                "{at} sent something that can't be parsed ({doing})"
            )),
            ErrorKind::ProtocolError(amqp) => {
                let text = amqp.get_message();
                match amqp.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if doing == "connecting" => {
                        Self {
                            message: format!(
                                "{at} refuses the login: {text}; check user and password in amqp.url \
                                 (REVERTD_AMQP__URL) or amqp.password_file, or, with auth_mechanism=external, \
                                 amqp.cert_file"
                            ),
                            kind: BrokerErrorKind::LoginRefused,
                        }
                    }
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if doing == "connecting" => {
                        Self {
                            message: format!(
                                "{at} refuses the virtual host: {text}; correct it in amqp.url, where / is \
                                 written %2f, or create it: rabbitmqctl add_vhost, set_permissions"
                            ),
                            kind: BrokerErrorKind::HostRefused,
                        }
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Self {
                        message: format!(
                            "{at} forbids {doing}: {text}; grant the user of amqp.url what the documentation lists \
                             under Permissions"
                        ),
                        kind: BrokerErrorKind::Forbidden,
                    },
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                        if doing.starts_with("publishing") =>
                    {
                        Self::unequal(format!(
                            "{at} refuses {doing}: {text}; amqp.url must name the user that the broker knows this \
                             login by (with auth_mechanism=external, what it reads from the certificate), and no \
                             message be larger than its max_message_size"
                        ))
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
                        Self::unequal(format!(
                            "{at} refuses {doing}: {text}; it exists with other arguments: configure what is \
                         there, delete it when it is empty, or set topology.declare = false"
                        ))
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Self {
                        message: format!(
                            "{at} refuses {doing}: {text}; `revertd worker` creates it at its start, with \
                             topology.declare = true"
                        ),
                        kind: BrokerErrorKind::Missing,
                    },
                    AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => {
                        Self::transient(format!("{at} fails at {doing}: {text}"))
                    }
                }
            }
            // The connection's end, as seen from a channel. Its cause was reported where it arose.
            _ => Self::transient(format!(
                "cannot work with {at} ({doing}): {error}; is it running, and is the address in amqp.url \
                 (REVERTD_AMQP__URL) right?"
            )),
        }
    }
}
