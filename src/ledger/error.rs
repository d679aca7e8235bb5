//! What can go wrong with the database, told apart where it arises: by `SQLSTATE`, never by text.

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

use crate::common::tls::{Fault, fault};
use crate::domain::outcome::Failure;

/// The database can't work at present. Says what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LedgerError {
    message: String,
    lasting: bool,
    /// Whether it arose before there was an encrypted connection to log in over.
    at_tls: bool,
}

impl LedgerError {
    /// Something that stays wrong until somebody mends it: a password, a missing schema or grant.
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            lasting: true,
            at_tls: false,
        }
    }

    /// Something that may mend itself.
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            lasting: false,
            at_tls: false,
        }
    }

    pub(crate) fn silent(host: &str) -> Self {
        Self::transient(format!(
            "PostgreSQL at {host} does not answer; check the server, its locks, its synchronous standbys and the network"
        ))
    }

    pub(crate) fn clear_text_only(host: &str) -> Self {
        let error = Self::permanent(format!(
            "PostgreSQL at {host} does not encrypt, and database.url asks for it; switch it on there (ssl = on in \
             postgresql.conf), or correct host and port. Nothing is ever sent in the clear instead"
        ));
        Self {
            at_tls: true,
            ..error
        }
    }

    pub(crate) fn is_at_tls(&self) -> bool {
        self.at_tls
    }

    /// Whether waiting alone won't mend it.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.lasting
    }
}

/// Why a statement failed, and therefore what is done about it.
#[derive(Debug)]
pub enum StatementError {
    /// There is no connection, or it ended: everything waits.
    Unavailable(LedgerError),
    /// Another writer was in the way: the same again.
    Contended(String),
    /// The server refused the statement. A probe tells whether that is its own fault or a request's.
    Refused(Box<RefusedStatement>),
}

/// A statement that the server refused.
#[derive(Debug)]
pub struct RefusedStatement {
    /// What is wrong if it is the server's fault.
    pub error: LedgerError,
    /// What is wrong if it is a request's.
    pub failure: Failure,
    pub cause: RefusalCause,
}

/// What a refused statement may have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// Another session's lock.
    Lock,
    /// A lack of room, or a schema that takes no entry: a probe does not notice it, since it writes nothing.
    Writing,
    /// Anything else.
    Other,
}

impl StatementError {
    /// What is wrong where nothing of the statement's own can be at fault.
    pub fn into_error(self) -> LedgerError {
        match self {
            Self::Unavailable(error) => error,
            Self::Contended(text) => LedgerError::permanent(text),
            Self::Refused(refused) => refused.error,
        }
    }
}

/// The same where nothing of the statement's own can be at fault.
pub fn unavailable(error: &Error, host: &str) -> LedgerError {
    classify(error, host).into_error()
}

/// Classifies an error of the client or the server; `host` is for the message.
pub fn classify(error: &Error, host: &str) -> StatementError {
    let Some(db) = error.as_db_error() else {
        return StatementError::Unavailable(of_connection(error, host));
    };
    let state = db.code();
    let text = format!("{} (SQLSTATE {})", db.message(), state.code());
    let ends_session = matches!(
        db.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    if ends_session {
        return StatementError::Unavailable(of_server(state, &text, host));
    }
    let refused = |error, failure, cause| {
        StatementError::Refused(Box::new(RefusedStatement {
            error,
            failure,
            cause,
        }))
    };
    match state {
        // Another worker's revert came before this one in the chain.
        &SqlState::CHECK_VIOLATION if db.constraint() == Some("outcomes_chain") => {
            StatementError::Contended(text)
        }
        // Another writer's entry of the same id; if it stays in the way, the request is at fault.
        &SqlState::UNIQUE_VIOLATION => StatementError::Contended(text),
        // A column or a reference that Frontier's tables gained: every request meets it.
        &SqlState::NOT_NULL_VIOLATION | &SqlState::FOREIGN_KEY_VIOLATION => {
            let error = LedgerError::permanent(format!(
                "the ledger's tables refuse every entry: {text}; their schema changed, compare it with \
                 ARCHITECTURE.md, section Ledger"
            ));
            refused(
                error,
                Failure::RetriesExhausted(text),
                RefusalCause::Writing,
            )
        }
        &SqlState::LOCK_NOT_AVAILABLE => refused(
            of_server(state, &text, host),
            Failure::Unavailable(text),
            RefusalCause::Lock,
        ),
        state => match &state.code()[..2] {
            "40" => StatementError::Contended(text),
            "21" | "22" | "23" | "54" | "P0" => refused(
                LedgerError::permanent(text.clone()),
                Failure::RetriesExhausted(text),
                RefusalCause::Other,
            ),
            // Disk, memory, and what the operating system refuses.
            "53" | "58" => refused(
                of_server(state, &text, host),
                Failure::Unavailable(text),
                RefusalCause::Writing,
            ),
            _ => refused(
                of_server(state, &text, host),
                Failure::RetriesExhausted(text),
                RefusalCause::Other,
            ),
        },
    }
}

/// Why the pool gives no connection.
pub fn of_pool(error: &PoolError, host: &str) -> LedgerError {
    match error {
        PoolError::Backend(error) => unavailable(error, host),
        PoolError::PostCreateHook(deadpool_postgres::HookError::Backend(error)) => {
            LedgerError::transient(format!(
                "PostgreSQL at {host} refuses the session: {}",
                chain(error)
            ))
        }
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => LedgerError::transient(format!(
            "no connection to PostgreSQL at {host} in time ({error}); is it running, is the address in \
             database.url right, are there connections left?"
        )),
    }
}

fn of_connection(error: &Error, host: &str) -> LedgerError {
    if let Some(Fault { what, lasting }) = fault(error, "database") {
        let message = format!("PostgreSQL at {host} {what}");
        return LedgerError {
            message,
            lasting,
            at_tls: true,
        };
    }
    LedgerError::transient(format!(
        "cannot work with PostgreSQL at {host}: {}; is it running, and is the address in database.url \
         (REVERTD_DATABASE__URL) right?",
        chain(error)
    ))
}

fn of_server(state: &SqlState, text: &str, host: &str) -> LedgerError {
    let at = format!("PostgreSQL at {host}");
    match state {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            LedgerError::permanent(format!(
                "{at} refuses the login: {text}; check user and password in database.url \
                 (REVERTD_DATABASE__URL) or database.password_file, the certificate of database.cert_file where the \
                 server asks for one, and the server's pg_hba.conf"
            ))
        }
        &SqlState::INVALID_CATALOG_NAME => LedgerError::permanent(format!(
            "{at}: {text}; create the database or correct its name in database.url"
        )),
        &SqlState::UNDEFINED_TABLE
        | &SqlState::UNDEFINED_FUNCTION
        | &SqlState::UNDEFINED_COLUMN
        | &SqlState::INVALID_SCHEMA_NAME => LedgerError::permanent(format!(
            "{at} lacks revertd's schema or Frontier's tables: {text}; run `revertd migrate`, and check \
             ledger.schema"
        )),
        &SqlState::INSUFFICIENT_PRIVILEGE => LedgerError::permanent(format!(
            "{at}: {text}; grant the role of database.url what the documentation lists under Permissions"
        )),
        &SqlState::READ_ONLY_SQL_TRANSACTION => LedgerError::transient(format!(
            "{at} is read-only: {text}; point database.url at the primary, or name all hosts with \
             target_session_attrs=read-write"
        )),
        &SqlState::DISK_FULL => {
            LedgerError::transient(format!("{at} is out of disk space: {text}; free some"))
        }
        &SqlState::TOO_MANY_CONNECTIONS => LedgerError::transient(format!(
            "{at} has no connection left: {text}; raise max_connections or lower database.pool_size"
        )),
        &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => {
            LedgerError::transient(format!(
                "{at} took too long: {text}; look for locks on the ledger's tables in pg_stat_activity"
            ))
        }
        _ => LedgerError::transient(format!("{at} fails: {text}")),
    }
}

/// The client's errors tell their cause only in their sources.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
