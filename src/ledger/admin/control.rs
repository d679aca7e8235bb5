//! The log of pauses. Its last row decides whether the fleet takes requests
//! (`migrations/V4__control.sql`).

use std::fmt;

use deadpool_postgres::Object;
use jiff::Timestamp;

use crate::config::Settings;
use crate::ledger::client::Ledger;
use crate::ledger::connection::session::Session;
use crate::ledger::error::{LedgerError, classify};

/// Selects the last row by its primary key, so that polling costs a worker almost nothing.
pub(crate) const LATEST: &str =
    "SELECT paused, why, changed_by, changed_as, changed_at FROM revertd.control
    ORDER BY id DESC LIMIT 1";

/// The last state that an operator set for the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetState {
    /// Whether the fleet takes no requests.
    pub paused: bool,
    /// The reason; always present for a pause.
    pub why: Option<String>,
    /// The operator's name, as given by the operator.
    pub by: String,
    /// The database role that wrote the row.
    pub as_role: String,
    /// When the row was written, by the database's clock.
    pub at: Timestamp,
}

impl FleetState {
    pub(crate) fn read(row: &tokio_postgres::Row) -> Self {
        Self {
            paused: row.get(0),
            why: row.get(1),
            by: row.get(2),
            as_role: row.get(3),
            at: row.get(4),
        }
    }
}

/// The operator, the time and the reason.
impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        write!(f, "by {} since {since}", self.by)?;
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        Ok(())
    }
}

impl Ledger {
    /// The pause in force, if any. Every process polls this every few seconds.
    ///
    /// # Errors
    ///
    /// If the database is unavailable, the table is missing, or the role may not read it.
    pub async fn pause(&self) -> Result<Option<FleetState>, LedgerError> {
        let looking = async |client: &Object| {
            let classify = |error| classify(&error, &self.host);
            let statement = client.prepare_cached(LATEST).await.map_err(classify)?;
            client.query_opt(&statement, &[]).await.map_err(classify)
        };
        match self.on_connection(looking).await {
            Ok(row) => Ok(row
                .as_ref()
                .map(FleetState::read)
                .filter(|state| state.paused)),
            Err(trouble) => Err(trouble.into_error()),
        }
    }
}

/// A session that reads and sets the state of the fleet.
pub struct Control {
    session: Session,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached.
    pub async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        Ok(Self { session })
    }

    /// The last state that was set; `None` if none was ever set.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read the table.
    pub async fn latest(&self) -> Result<Option<FleetState>, LedgerError> {
        let asked = self.session.client.query_opt(LATEST, &[]);
        let row = self.session.answered(asked).await?;
        Ok(row.as_ref().map(FleetState::read))
    }

    /// Pauses or resumes the fleet in the name of `by`, or else of the database role. Running
    /// workers see it within seconds, new workers when they start.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not write to the table.
    pub async fn tell(
        &self,
        paused: bool,
        why: Option<&str>,
        by: Option<&str>,
    ) -> Result<FleetState, LedgerError> {
        let statement = "INSERT INTO revertd.control (paused, why, changed_by)
            VALUES ($1, $2, coalesce($3, session_user))
            RETURNING paused, why, changed_by, changed_as, changed_at";
        let client = &self.session.client;
        let telling = async { client.query_one(statement, &[&paused, &why, &by]).await };
        Ok(FleetState::read(&self.session.answered(telling).await?))
    }
}
