//! Reads usages that a request could revert now: those of an org or account that are not reverted
//! yet or, under the policy `cumulative`, not completely. It only reads.

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::config::{Policy, Settings};
use crate::domain::request::{Amount, Reference};
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// One snapshot is read to its end. The reader decides how fast it reads, so the transaction may be
/// idle. The server ends the work if the reader is gone. Reverts are looked up by index, whatever
/// the planner would guess.
const SESSION: &str = "
    SET statement_timeout = '1h';
    SET lock_timeout = '15s';
    SET idle_in_transaction_session_timeout = 0;
    SELECT set_config(name, '5s', false)
    FROM pg_settings WHERE name = 'client_connection_check_interval';
    SET jit = off;
    SET enable_seqscan = off;
    SET cursor_tuple_fraction = 1;
    SET max_parallel_workers_per_gather = 0;
    SET work_mem = '64MB';
";

/// Not in one message with the settings: one of them is a query, which begins a transaction.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Times that have no year of four digits are left out of the first and the last.
const COUNT: &str =
    "SELECT count(*), count(DISTINCT account_id), coalesce(sum(remaining), 0)::text,
        min(created_at) FILTER (WHERE created_at >= '0001-01-01 00:00+00'
            AND created_at < '10000-01-01 00:00+00'),
        max(created_at) FILTER (WHERE created_at >= '0001-01-01 00:00+00'
            AND created_at < '10000-01-01 00:00+00')
    FROM (";

/// The accounts whose usages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageScope {
    /// All accounts of an org.
    Org(Reference),
    /// One account.
    Account(Uuid),
}

/// A filter of usages. All given parts must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageFilter {
    /// The accounts.
    pub scope: UsageScope,
    /// Written at this time or later.
    pub since: Option<Timestamp>,
    /// Written before this time.
    pub until: Option<Timestamp>,
    /// Of this source; the empty text for usages without a source.
    pub source: Option<String>,
    /// Keys of the metadata, each with its value as text.
    pub metadata: Vec<(String, String)>,
    /// The earliest ones, at most so many.
    pub limit: Option<u32>,
}

/// Counts of the usages that match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageCount {
    /// Usages.
    pub usages: i64,
    /// Accounts that have at least one of them.
    pub accounts: i64,
    /// The sum of the amounts that can be reverted.
    pub sum: i128,
    /// When the first was written.
    pub first: Option<Timestamp>,
    /// When the last was written.
    pub last: Option<Timestamp>,
}

/// A usage of which something can be reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevertableUsage {
    /// Its id.
    pub id: Uuid,
    /// Its account.
    pub account_id: Uuid,
    /// The amount that can be reverted.
    pub remaining: Amount,
    /// The amount that was reverted before.
    pub reverted: i64,
}

/// The usages of one snapshot, read in steps.
pub struct Usages {
    session: Session,
    statement: String,
    accounts: Vec<Uuid>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    source: Option<String>,
    keys: Vec<String>,
    values: Vec<String>,
    cumulative: bool,
    max_age_secs: Option<f64>,
    limit: Option<i64>,
}

impl Usages {
    /// Opens a snapshot of the usages that match the filter. `None` if the org or the account does
    /// not exist, is deleted, or is the platform's own.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, or the role may not read a table.
    pub async fn open(
        settings: &Settings,
        filter: UsageFilter,
    ) -> Result<Option<Self>, LedgerError> {
        let session = Session::open(settings).await?;
        session.execute(SESSION).await?;
        session.execute(SNAPSHOT).await?;
        let Some(accounts) = accounts(&session, settings, &filter.scope).await? else {
            return Ok(None);
        };
        let (keys, values) = filter.metadata.into_iter().unzip();
        Ok(Some(Self {
            session,
            statement: in_schema(include_str!("usages.sql"), settings),
            accounts,
            since: filter.since,
            until: filter.until,
            source: filter.source,
            keys,
            values,
            cumulative: settings.revert.policy == Policy::Cumulative,
            max_age_secs: settings.revert.max_age.map(|age| age.as_secs_f64()),
            limit: filter.limit.map(i64::from),
        }))
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.accounts,
            &self.since,
            &self.until,
            &self.source,
            &self.keys,
            &self.values,
            &self.cumulative,
            &self.max_age_secs,
            &self.limit,
        ]
    }

    /// Counts the usages.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn count(&self) -> Result<UsageCount, LedgerError> {
        let statement = format!("{COUNT}{}) matching", self.statement);
        let params = self.params();
        let row = self.session.client.query_one(&statement, &params).await;
        let row = row.map_err(|error| self.session.classify(&error))?;
        let sum: &str = row.get(2);
        Ok(UsageCount {
            usages: row.get(0),
            accounts: row.get(1),
            sum: sum.parse().expect("a sum of bigints is a whole number"),
            first: row.get(3),
            last: row.get(4),
        })
    }

    /// Opens a cursor, the earliest usage first. The server sorts them, in files if they exceed its
    /// memory.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn begin(&self) -> Result<(), LedgerError> {
        let statement = format!("DECLARE usages NO SCROLL CURSOR FOR {}", self.statement);
        let params = self.params();
        let begun = self.session.client.execute(&statement, &params).await;
        begun.map_err(|error| self.session.classify(&error))?;
        Ok(())
    }

    /// The next usages, at most `max`; empty at the end.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn next(&self, max: u32) -> Result<Vec<RevertableUsage>, LedgerError> {
        let fetch = format!("FETCH {max} FROM usages");
        let rows = self.session.client.query(&fetch, &[]).await;
        let rows = rows.map_err(|error| self.session.classify(&error))?;
        Ok(rows.iter().map(usage).collect())
    }
}

/// The accounts of a scope.
async fn accounts(
    session: &Session,
    settings: &Settings,
    scope: &UsageScope,
) -> Result<Option<Vec<Uuid>>, LedgerError> {
    let (org, account) = match scope {
        UsageScope::Org(org) => (Some(org), None),
        UsageScope::Account(account) => (None, Some(*account)),
    };
    let id = org.and_then(Reference::id);
    let name = org.and_then(Reference::name);
    let statement = in_schema(include_str!("usage_accounts.sql"), settings);
    let platform = settings.ledger.platform_account;
    let params: [&(dyn ToSql + Sync); 4] = [&id, &name, &account, &platform];
    let row = session.client.query_opt(&statement, &params).await;
    let row = row.map_err(|error| session.classify(&error))?;
    Ok(row.map(|row| row.get(0)))
}

fn usage(row: &Row) -> RevertableUsage {
    let remaining = Amount::new(row.get(2));
    RevertableUsage {
        id: row.get(0),
        account_id: row.get(1),
        remaining: remaining.expect("the statement returns usages that have a remainder"),
        reverted: row.get(3),
    }
}
