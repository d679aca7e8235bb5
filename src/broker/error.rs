//! What can go wrong with the broker, told apart where it arises: by kind and reply code, never by text.

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::common::tls::{Fault, fault};

/// The broker can't work at present. Says what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    message: String,
    nature: ErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorKind {
    Passing,
    Lasting,
    LoginRefused,
    HostRefused,
    Forbidden,
    Missing,
    Unequal,
    Blocked,
}

impl BrokerError {
    /// Something that may mend itself.
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        let (message, nature) = (message.into(), ErrorKind::Passing);
        Self { message, nature }
    }

    /// Something that stays wrong until somebody mends it.
    pub(crate) fn lasting(message: impl Into<String>) -> Self {
        let (message, nature) = (message.into(), ErrorKind::Lasting);
        Self { message, nature }
    }

    fn unequal(message: String) -> Self {
        let nature = ErrorKind::Unequal;
        Self { message, nature }
    }

    pub(crate) fn silent(host: &str) -> Self {
        Self::passing(format!(
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
            nature: ErrorKind::Blocked,
        }
    }

    pub(crate) fn ended(queue: &str) -> Self {
        Self::passing(format!(
            "the broker stopped delivering from {queue}: the queue was deleted, or an acknowledgement \
             took longer than its consumer_timeout"
        ))
    }

    /// This and what another address answered: lasting only if both are.
    pub(crate) fn and(self, other: &Self) -> Self {
        let nature = if self.nature == other.nature {
            self.nature
        } else {
            ErrorKind::Passing
        };
        Self {
            message: format!("{}; and {}", self.message, other.message),
            nature,
        }
    }

    /// Whether waiting alone won't mend it.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self.nature,
            ErrorKind::Lasting
                | ErrorKind::LoginRefused
                | ErrorKind::HostRefused
                | ErrorKind::Forbidden
                | ErrorKind::Missing
                | ErrorKind::Unequal
        )
    }

    /// Whether the broker knows no user of that name and password.
    pub(crate) fn is_login_refused(&self) -> bool {
        self.nature == ErrorKind::LoginRefused
    }

    /// Whether the broker knows the user, and keeps it from the virtual host.
    pub(crate) fn is_host_refused(&self) -> bool {
        self.nature == ErrorKind::HostRefused
    }

    /// Whether the broker's user lacks a permission.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.nature == ErrorKind::Forbidden
    }

    /// Whether something that was named is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.nature == ErrorKind::Missing
    }

    /// Whether something that was declared, or an argument, is not as the broker would have it.
    pub(crate) fn is_unequal(&self) -> bool {
        self.nature == ErrorKind::Unequal
    }

    /// Whether the broker takes no messages, and says when it does again.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.nature == ErrorKind::Blocked
    }

    /// Classifies an error of the client or the broker. `doing` says what failed, with names.
    pub(crate) fn classify(error: &Error, host: &str, doing: &str) -> Self {
        let at = format!("RabbitMQ at {host}");
        if let Some(Fault { what, lasting }) = fault(error, "amqp") {
            let nature = if lasting {
                ErrorKind::Lasting
            } else {
                ErrorKind::Passing
            };
            let message = format!("{at} {what}");
            return Self { message, nature };
        }
        match error.kind() {
            // Nothing was delivered yet: what came is no AMQP.
            ErrorKind::ParsingError(_) if doing == "connecting" => Self::lasting(format!(
                "{at} answers with something else than AMQP; correct host and port in amqp.url, or write \
                 amqps:// if this is a port that speaks TLS"
            )),
            ErrorKind::ParsingError(_) => Self::passing(format!(
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
                            nature: ErrorKind::LoginRefused,
                        }
                    }
                    AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if doing == "connecting" => {
                        Self {
                            message: format!(
                                "{at} refuses the virtual host: {text}; correct it in amqp.url, where / is \
                                 written %2f, or create it: rabbitmqctl add_vhost, set_permissions"
                            ),
                            nature: ErrorKind::HostRefused,
                        }
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Self {
                        message: format!(
                            "{at} forbids {doing}: {text}; grant the user of amqp.url what the README lists \
                             under Permissions"
                        ),
                        nature: ErrorKind::Forbidden,
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
                        nature: ErrorKind::Missing,
                    },
                    AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => {
                        Self::passing(format!("{at} fails at {doing}: {text}"))
                    }
                }
            }
            // The connection's end, as seen from a channel. Its cause was reported where it arose.
            _ => Self::passing(format!(
                "cannot work with {at} ({doing}): {error}; is it running, and is the address in amqp.url \
                 (REVERTD_AMQP__URL) right?"
            )),
        }
    }
}
