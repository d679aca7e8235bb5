//! The ledger in PostgreSQL: decides batches of requests, and writes the entries.
//!
//! The only room that names the PostgreSQL client. It must not know the broker.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio_postgres::types::{Json, ToSql};

use crate::outcome::Decision;
use crate::request::RevertRequest;
use crate::seam;
use crate::settings::{Policy, Settings};

mod batch;
mod connect;
mod error;
mod migrate;
mod row;

pub use error::LedgerError;
pub use migrate::{Migrated, check, migrate};

use batch::Params;
use error::Trouble;

/// Longest that the server works on a statement; after it the batch is tried again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that a statement's answer is waited for; a connection that is silent for longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Access to the ledger, shared by the workers of a process.
#[derive(Clone)]
pub struct Ledger {
    pool: Pool,
    host: String,
    statement: String,
    cumulative: bool,
    max_age_secs: Option<f64>,
    platform_account: uuid::Uuid,
}

impl Ledger {
    /// Prepares access; connects to nothing yet.
    ///
    /// # Errors
    /// Where `database.url` can't be understood.
    pub fn new(settings: &Settings) -> Result<Self, LedgerError> {
        let (pool, host) = connect::pool(settings)?;
        Ok(Self {
            pool,
            host,
            statement: connect::in_schema(include_str!("ledger/apply.sql"), settings),
            cumulative: settings.revert.policy == Policy::Cumulative,
            max_age_secs: settings.revert.max_age.map(|age| age.as_secs_f64()),
            platform_account: settings.ledger.platform_account,
        })
    }

    /// Decides `requests`, in their order, and writes what is decided. Answers each, in the same order;
    /// requests that are one request get one answer.
    ///
    /// # Errors
    /// Where the database can't work at present; then some requests may be decided all the same, and
    /// asking again answers them from what is stored.
    pub async fn apply(&self, requests: &[RevertRequest]) -> Result<Vec<Decision>, LedgerError> {
        batch::apply(self, requests).await
    }

    /// Does all that [`Ledger::apply`] does in one statement, and takes it back.
    ///
    /// # Errors
    /// Where the database can't work at present. What is wrong with single requests is not reported.
    pub async fn rehearse(&self, requests: &[RevertRequest]) -> Result<(), LedgerError> {
        let params = Params::new(requests.iter());
        match self.timed(self.run_and_roll_back(&params)).await {
            Ok(()) | Err(Trouble::Contended(_) | Trouble::Rejected(_)) => Ok(()),
            Err(Trouble::Unavailable(error)) => Err(error),
        }
    }

    async fn run(&self, params: &Params<'_>) -> Result<Vec<row::Row>, Trouble> {
        self.timed(async {
            let client = self.client().await?;
            let rows = self.execute(&client, params).await;
            Self::discard_if_unavailable(client, &rows);
            rows
        })
        .await
    }

    async fn run_and_roll_back(&self, params: &Params<'_>) -> Result<(), Trouble> {
        let client = self.client().await?;
        let begin = client.batch_execute("BEGIN").await;
        let done = match begin.map_err(|error| error::classify(&error, &self.host)) {
            Ok(()) => self.execute(&client, params).await,
            Err(trouble) => Err(trouble),
        };
        // A transaction must never outlive this: where it can't be ended, the connection goes.
        let ended = client.batch_execute("ROLLBACK").await;
        if ended.is_err() {
            drop(Object::take(client));
        } else {
            Self::discard_if_unavailable(client, &done);
        }
        done.map(|_| ())
    }

    async fn execute(
        &self,
        client: &Object,
        params: &Params<'_>,
    ) -> Result<Vec<row::Row>, Trouble> {
        let classify = |error| error::classify(&error, &self.host);
        let statement = client
            .prepare_cached(&self.statement)
            .await
            .map_err(classify)?;
        let rest: [&(dyn ToSql + Sync); 3] =
            [&self.cumulative, &self.max_age_secs, &self.platform_account];
        let arrays = params.arrays();
        let all: Vec<&(dyn ToSql + Sync)> = arrays.into_iter().chain(rest).collect();
        let answer = seam::amid(seam::DECIDING, client.query(&statement, &all)).await;
        let rows = answer.map_err(classify)?;
        rows.iter()
            .map(|row| row::Row::read(row).map_err(|error| error::classify(&error, &self.host)))
            .collect()
    }

    async fn client(&self) -> Result<Object, Trouble> {
        let client = self.pool.get().await;
        client.map_err(|error| Trouble::Unavailable(error::of_pool(&error, &self.host)))
    }

    /// A connection on which the database failed may be dead, or hold a plan that no longer fits.
    fn discard_if_unavailable<T>(client: Object, result: &Result<T, Trouble>) {
        if let Err(Trouble::Unavailable(_)) = result {
            drop(Object::take(client));
        }
    }

    /// Gives up on silence. The connection is then dropped with the future that holds it: the pool takes
    /// it back only closed, since its answer is still outstanding.
    async fn timed<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        tokio::time::timeout(ANSWER_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| {
                // Which connection was silent is not known here; none of them is trusted.
                self.pool.retain(|_, _| false);
                Err(Trouble::Unavailable(LedgerError::silent(&self.host)))
            })
    }
}

/// Metadata of a refusal as the statement returns it.
type StoredMetadata = Json<crate::outcome::Metadata>;
