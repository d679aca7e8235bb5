//! The statements of a round.

use std::sync::Arc;

use crate::config::Settings;
use crate::ledger::connection::connect::in_schema;

/// The statements of a round.
#[derive(Clone)]
pub(crate) struct Statements {
    pub facts: Arc<str>,
    pub reverts: Arc<str>,
    pub outcomes: Arc<str>,
    pub write: Arc<str>,
}

impl Statements {
    pub fn new(settings: &Settings) -> Self {
        let of = |statement| in_schema(statement, settings).into();
        Self {
            facts: of(include_str!("facts.sql")),
            reverts: of(include_str!("reverts.sql")),
            outcomes: of(include_str!("outcomes.sql")),
            write: of(include_str!("write.sql")),
        }
    }
}
