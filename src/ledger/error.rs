//! Errors of the database, classified where they arise: by `SQLSTATE`, never by a text.

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

use crate::common::diagnostic::Diagnostic;
use crate::common::tls::{Fault, fault};
use crate::domain::outcome::Failure;

/// The database cannot work at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{diagnostic}")]
pub struct LedgerError {
    diagnostic: Diagnostic,
    permanent: bool,
    /// Whether it arose before there was an encrypted connection to log in over.
    at_tls: bool,
}

impl LedgerError {
    /// An error that remains until an operator removes its cause: a password, a missing schema or
    /// privilege.
    pub(crate) fn permanent(problem: impl Into<Diagnostic>) -> Self {
        Self {
            diagnostic: problem.into(),
            permanent: true,
            at_tls: false,
        }
    }

    /// An error that may go away without an operator.
    pub(crate) fn transient(problem: impl Into<Diagnostic>) -> Self {
        Self {
            permanent: false,
            ..Self::permanent(problem)
        }
    }

    pub(crate) fn silent(host: &str) -> Self {
        let problem = Diagnostic::new(format!("PostgreSQL at {host} does not answer"));
        Self::transient(
            problem.remedy("check the server, its locks, its synchronous standbys and the network"),
        )
    }

    pub(crate) fn clear_text_only(host: &str) -> Self {
        let problem = Diagnostic::new(format!(
            "PostgreSQL at {host} does not encrypt, and database.url requires it, so revertd sent \
             nothing"
        ));
        let error = Self::permanent(problem.remedy(
            "set ssl = on in the server's postgresql.conf, or correct host and port in \
             database.url",
        ));
        Self {
            at_tls: true,
            ..error
        }
    }

    /// The message and the remedy.
    #[must_use]
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.diagnostic
    }

    pub(crate) fn is_at_tls(&self) -> bool {
        self.at_tls
    }

    /// Whether the error remains until an operator removes its cause.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// Why a statement failed, and therefore what is done about it.
#[derive(Debug)]
pub enum StatementError {
    /// There is no connection, or it ended: everything waits.
    Unavailable(LedgerError),
    /// An outcome or an entry has the same id, or another transaction was in the way: the same
    /// again. The outcome may have been stored long ago, if it was not looked up.
    Contended(String),
    /// The server refused the statement. A probe tells whether that is its own fault or a
    /// request's.
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
    /// A lack of room, or a schema that takes no entry: a probe does not notice it, since it writes
    /// nothing.
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
        // An entry or an outcome of the same id. The next round finds it. If the conflict does not
        // end, the request is at fault.
        &SqlState::UNIQUE_VIOLATION => StatementError::Contended(text),
        // A column or a reference that Frontier's tables gained: every request meets it.
        &SqlState::NOT_NULL_VIOLATION | &SqlState::FOREIGN_KEY_VIOLATION => {
            let problem = Diagnostic::new(format!(
                "a constraint of Frontier's tables refuses entries: {text}"
            ));
            let error = LedgerError::permanent(problem.remedy(
                "run `revertd doctor`, which compares Frontier's tables with those that this \
                 version of revertd writes",
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
                "PostgreSQL at {host} refuses the settings of a session: {}",
                chain(error)
            ))
        }
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => {
            let text = format!("PostgreSQL at {host} gave no connection in time ({error})");
            LedgerError::transient(Diagnostic::new(text).remedy(
                "check that the server runs, its max_connections, and the address in database.url",
            ))
        }
    }
}

fn of_connection(error: &Error, host: &str) -> LedgerError {
    if let Some(Fault { problem, permanent }) = fault(error, "database") {
        return LedgerError {
            diagnostic: problem.prefixed(format!("PostgreSQL at {host} ")),
            permanent,
            at_tls: true,
        };
    }
    let text = format!(
        "the connection to PostgreSQL at {host} failed: {}",
        chain(error)
    );
    LedgerError::transient(Diagnostic::new(text).remedy(
        "check that the server runs, and the address in database.url (REVERTD_DATABASE__URL)",
    ))
}

fn of_server(state: &SqlState, text: &str, host: &str) -> LedgerError {
    let problem = |what: &str| Diagnostic::new(format!("PostgreSQL at {host} {what}: {text}"));
    match state {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            LedgerError::permanent(problem("refuses the login").remedy(
                "check user and password in database.url (REVERTD_DATABASE__URL) or \
                 database.password_file, the certificate of database.cert_file where the server \
                 requires one, and the server's pg_hba.conf",
            ))
        }
        &SqlState::INVALID_CATALOG_NAME => LedgerError::permanent(
            problem("has no such database")
                .remedy("create the database, or correct its name in database.url"),
        ),
        &SqlState::UNDEFINED_TABLE
        | &SqlState::UNDEFINED_FUNCTION
        | &SqlState::UNDEFINED_COLUMN
        | &SqlState::INVALID_SCHEMA_NAME => LedgerError::permanent(
            problem("lacks revertd's schema or Frontier's tables")
                .remedy("run `revertd migrate`, and check ledger.schema"),
        ),
        &SqlState::INSUFFICIENT_PRIVILEGE => LedgerError::permanent(
            problem("denies a privilege to the role of database.url").remedy(
                "grant it: GRANT PRIVILEGE ON OBJECT TO ROLE; `revertd doctor` prints the \
                 statements for the role of a worker",
            ),
        ),
        &SqlState::READ_ONLY_SQL_TRANSACTION => {
            LedgerError::transient(problem("is read-only").remedy(
                "name the primary in database.url, or all hosts with \
                 target_session_attrs=read-write",
            ))
        }
        &SqlState::DISK_FULL => LedgerError::transient(
            problem("is out of disk space").remedy("free disk space on its server"),
        ),
        &SqlState::TOO_MANY_CONNECTIONS => LedgerError::transient(
            problem("has no connection left")
                .remedy("raise max_connections, or lower database.pool_size"),
        ),
        &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => LedgerError::transient(
            problem("took too long")
                .remedy("find sessions that hold locks on the ledger's tables in pg_stat_activity"),
        ),
        _ => LedgerError::transient(problem("returned an error")),
    }
}

/// The client's errors name their cause only in their sources.
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
