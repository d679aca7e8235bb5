//! Whether the fleet takes requests: the log whose last row decides (`migrations/V4__control.sql`).

use std::fmt;

use deadpool_postgres::Object;
use jiff::Timestamp;

use crate::config::Settings;
use crate::ledger::client::Ledger;
use crate::ledger::connection::session::Session;
use crate::ledger::error::{LedgerError, classify};

/// The last row. By its key, so that it costs a worker next to nothing to look.
pub(crate) const LATEST: &str =
    "SELECT paused, why, changed_by, changed_as, changed_at FROM revertd.control
    ORDER BY id DESC LIMIT 1";

/// What somebody last told the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetState {
    /// Whether it is to take no requests.
    pub paused: bool,
    /// Why; always given for a pause.
    pub why: Option<String>,
    /// Who says that he did it.
    pub by: String,
    /// The database's role that wrote it.
    pub as_role: String,
    /// When, by the database's clock.
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

/// By whom, since when and why.
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
    /// The pause that is in force, if one is. Asked by each process every few seconds.
    ///
    /// # Errors
    /// Where the database can't work at present, or does not have the table, or does not show it.
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
                .filter(|told| told.paused)),
            Err(trouble) => Err(trouble.into_error()),
        }
    }
}

/// A session that tells the fleet what to do.
pub struct Control {
    session: Session,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// Where the database can't be reached.
    pub async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        Ok(Self { session })
    }

    /// What the fleet was last told; `None` where nobody ever told it anything.
    ///
    /// # Errors
    /// Where the database fails, or the role may not.
    pub async fn latest(&self) -> Result<Option<FleetState>, LedgerError> {
        let asked = self.session.client.query_opt(LATEST, &[]);
        let row = self.session.answered(asked).await?;
        Ok(row.as_ref().map(FleetState::read))
    }

    /// Tells the fleet to pause, or to go on, in the name of `by`, or else of the database's role. Seen by running
    /// workers within seconds, and by those that start.
    ///
    /// # Errors
    /// Where the database fails, or the role may not.
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
