//! Errors of the broker, classified where they arise: by the client's kind of error, the AMQP reply
//! code and the [`Operation`], never by a text.

use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use super::operation::Operation;
use crate::common::diagnostic::Diagnostic;
use crate::common::tls::{Fault, fault};

/// The broker cannot work at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{diagnostic}")]
pub struct BrokerError {
    diagnostic: Diagnostic,
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

impl BrokerErrorKind {
    fn with(self, diagnostic: Diagnostic) -> BrokerError {
        BrokerError {
            diagnostic,
            kind: self,
        }
    }
}

impl BrokerError {
    /// An error that may go away without an operator.
    pub(crate) fn transient(problem: impl Into<Diagnostic>) -> Self {
        BrokerErrorKind::Transient.with(problem.into())
    }

    /// An error that remains until an operator removes its cause.
    pub(crate) fn permanent(problem: impl Into<Diagnostic>) -> Self {
        BrokerErrorKind::Permanent.with(problem.into())
    }

    pub(crate) fn silent(host: &str) -> Self {
        let problem = Diagnostic::new(format!("RabbitMQ at {host} does not answer"));
        Self::transient(problem.remedy(
            "check the server, its memory and disk alarms (rabbitmq-diagnostics alarms) and the \
             network",
        ))
    }

    /// `reason` is the broker's own text.
    pub(crate) fn blocked(host: &str, reason: &str) -> Self {
        let problem = Diagnostic::new(format!("RabbitMQ at {host} blocks publishers: {reason}"));
        BrokerErrorKind::Blocked.with(problem.remedy(
            "run rabbitmq-diagnostics alarms on its server, and free memory or disk space there",
        ))
    }

    pub(crate) fn ended(queue: &str) -> Self {
        Self::transient(format!(
            "RabbitMQ stopped delivering from queue {queue}: the queue was deleted, or an \
             acknowledgement took longer than its consumer_timeout"
        ))
    }

    /// This error and that of another address. It keeps its kind if the other has the same.
    pub(crate) fn and(self, other: &Self) -> Self {
        let kind = if self.kind == other.kind {
            self.kind
        } else {
            BrokerErrorKind::Transient
        };
        kind.with(self.diagnostic.and(&other.diagnostic))
    }

    /// The message and the remedy.
    #[must_use]
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.diagnostic
    }

    /// Whether the error remains until an operator removes its cause.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            BrokerErrorKind::Permanent
            | BrokerErrorKind::LoginRefused
            | BrokerErrorKind::HostRefused
            | BrokerErrorKind::Forbidden
            | BrokerErrorKind::Missing
            | BrokerErrorKind::Unequal => true,
            BrokerErrorKind::Transient | BrokerErrorKind::Blocked => false,
        }
    }

    /// Whether the broker knows no user of that name and password.
    pub(crate) fn is_login_refused(&self) -> bool {
        self.kind == BrokerErrorKind::LoginRefused
    }

    /// Whether the broker knows the user, and denies the virtual host.
    pub(crate) fn is_host_refused(&self) -> bool {
        self.kind == BrokerErrorKind::HostRefused
    }

    /// Whether the broker's user lacks a permission.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.kind == BrokerErrorKind::Forbidden
    }

    /// Whether the queue or exchange does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        self.kind == BrokerErrorKind::Missing
    }

    /// Whether the broker answered `PRECONDITION_FAILED`: an argument differs or is invalid.
    pub(crate) fn is_unequal(&self) -> bool {
        self.kind == BrokerErrorKind::Unequal
    }

    /// Whether the broker blocks publishers. It announces the end of that on the connection.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.kind == BrokerErrorKind::Blocked
    }

    /// Classifies an error of the client or of the broker.
    pub(crate) fn classify(error: &Error, host: &str, operation: Operation<'_>) -> Self {
        let at = format!("RabbitMQ at {host}");
        if let Some(Fault { problem, permanent }) = fault(error, "amqp") {
            let kind = if permanent {
                BrokerErrorKind::Permanent
            } else {
                BrokerErrorKind::Transient
            };
            return kind.with(problem.prefixed(format!("{at} ")));
        }
        match error.kind() {
            // Nothing was delivered yet: the server does not speak AMQP.
            ErrorKind::ParsingError(_) if operation == Operation::Connecting => {
                let problem = Diagnostic::new(format!("{at} does not answer in AMQP"));
                Self::permanent(problem.remedy(
                    "correct host and port in amqp.url, or write amqps:// if the port speaks TLS",
                ))
            }
            ErrorKind::ParsingError(_) => Self::transient(format!(
                "{at} sent a frame that revertd could not parse while {operation}"
            )),
            ErrorKind::ProtocolError(reply) => of_reply(reply, &at, operation),
            // The connection ended, as a channel sees it. Its cause was reported where it arose.
            _ => {
                let text = format!("the connection to {at} failed while {operation}: {error}");
                Self::transient(Diagnostic::new(text).remedy(
                    "check that the server runs, and the address in amqp.url (REVERTD_AMQP__URL)",
                ))
            }
        }
    }
}

/// Classifies an AMQP reply code.
fn of_reply(reply: &AMQPError, at: &str, operation: Operation<'_>) -> BrokerError {
    let text = reply.get_message();
    let is_login = operation == Operation::Connecting;
    match reply.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if is_login => {
            let problem = Diagnostic::new(format!("{at} refuses the login: {text}"));
            BrokerErrorKind::LoginRefused.with(problem.remedy(
                "check user and password in amqp.url (REVERTD_AMQP__URL) or amqp.password_file, \
                 or, with auth_mechanism=external, amqp.cert_file",
            ))
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if is_login => {
            let problem = Diagnostic::new(format!("{at} refuses the virtual host: {text}"));
            BrokerErrorKind::HostRefused.with(problem.remedy(
                "correct it in amqp.url, where / is written %2f, or create it: rabbitmqctl \
                 add_vhost VHOST, rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ",
            ))
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
            let problem = Diagnostic::new(format!(
                "{at} denied a permission while {operation}: {text}"
            ));
            BrokerErrorKind::Forbidden.with(problem.remedy(
                "grant the user that permission: rabbitmqctl set_permissions -p VHOST USER \
                 CONFIGURE WRITE READ",
            ))
        }
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
            BrokerErrorKind::Unequal.with(of_precondition(text.as_str(), at, operation))
        }
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
            let text = format!("{at} found no queue or exchange while {operation}: {text}");
            BrokerErrorKind::Missing.with(
                Diagnostic::new(text).remedy(
                    "start `revertd worker` with topology.declare = true, which declares it",
                ),
            )
        }
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => {
            BrokerError::transient(format!("{at} returned an error while {operation}: {text}"))
        }
    }
}

fn of_precondition(text: &str, at: &str, operation: Operation<'_>) -> Diagnostic {
    if operation.is_publishing() {
        return Diagnostic::new(format!("{at} rejected a message while {operation}: {text}"))
            .remedy(
                "amqp.url must name the user that the broker knows this login by (with \
                 auth_mechanism=external, the name that it reads from the certificate), and no \
                 message may be larger than the broker's max_message_size",
            );
    }
    let problem = Diagnostic::new(format!(
        "{at} refused an argument while {operation}: {text}"
    ));
    if operation.is_declaring() {
        return problem.remedy(
            "it exists with other arguments: configure those that it has, delete it while it is \
             empty, or set topology.declare = false",
        );
    }
    problem
}

#[cfg(test)]
mod tests;
