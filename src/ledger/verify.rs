//! Checks every invariant of the outcomes and of the ledger's reverts, and writes nothing.
//!
//! One transaction gives one snapshot: it does not see rows that running workers write meanwhile,
//! and blocks no writer. The ids of outcomes and of legs are evenly distributed digests, so a range
//! of ids contains an even part of the rows. This bounds the memory, and lets an interrupted run
//! continue.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connection::connect::in_schema;
use super::connection::session::Session;
use super::error::LedgerError;
use super::schema::archive::with_archive;
use super::schema::migrate::{VERSION, latest};
use super::schema::objects::{ObjectScope, schema_diff};
use crate::config::Settings;
use crate::domain::request::{identity, reuse_identity};

mod finding;
mod range;

pub use finding::{Finding, FindingKind};
pub use range::Range;

/// The session's settings. A range may take any time, and the reader of the findings may pause. The
/// check uses one processor and leaves the others to workers.
const SESSION: &str = "
    SET statement_timeout = 0;
    SET lock_timeout = '15s';
    SET idle_in_transaction_session_timeout = 0;
    SET jit = off;
    SET max_parallel_workers_per_gather = 0;
    SET work_mem = '64MB';
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
";

/// Bytes of the tables for each range.
const RANGE_BYTES: i64 = 8 * 1024 * 1024;

/// Most ranges: each begins at an id that four digits identify.
const RANGES_MAX: u32 = 1 << 16;

/// Counts of checked rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Outcomes.
    pub outcomes: i64,
    /// Outcomes whose account was deleted. Their entries may be missing.
    pub of_deleted_accounts: i64,
    /// Legs of reverts, of every writer.
    pub legs: i64,
    given: i128,
    taken: i128,
}

impl Verified {
    /// Adds the counts of another range.
    pub fn add(&mut self, other: &Self) {
        self.outcomes += other.outcomes;
        self.of_deleted_accounts += other.of_deleted_accounts;
        self.legs += other.legs;
        self.given += other.given;
        self.taken += other.taken;
    }

    /// The finding if the customers' credits differ from the platform's debits. It only applies to
    /// all ids together.
    #[must_use]
    pub fn imbalance(&self) -> Option<Finding> {
        (self.given != self.taken).then(|| Finding {
            about: Some(format!("given {} taken {}", self.given, self.taken)),
            ..Finding::new(FindingKind::LegsUnbalanced)
        })
    }
}

/// A snapshot that is being checked.
pub struct Verification {
    session: Session,
    outcomes: String,
    entries: String,
    ids: String,
    schema: String,
    /// The findings about the schema.
    guards: Vec<Finding>,
    platform_account: Uuid,
    ranges: u32,
}

impl Verification {
    /// Takes the snapshot.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, or the role may not read a table.
    pub async fn begin(settings: &Settings) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        let guards = guards(&session).await?;
        session.execute(SESSION).await?;
        let size = in_schema(
            "SELECT pg_relation_size('revertd.outcomes'::regclass) \
             + coalesce(pg_relation_size(to_regclass('revertd.outcomes_archive')), 0) \
             + pg_relation_size('{ledger}.billing_transactions'::regclass)",
            settings,
        );
        let row = session.answered(session.client.query_one(&size, &[]));
        let bytes: i64 = row.await?.get(0);
        let ranges = u32::try_from(bytes / RANGE_BYTES).unwrap_or(RANGES_MAX);
        let statement = async |text| with_archive(&session, &in_schema(text, settings)).await;
        Ok(Self {
            outcomes: statement(include_str!("verify/outcomes.sql")).await?,
            entries: statement(include_str!("verify/entries.sql")).await?,
            ids: statement(include_str!("verify/ids.sql")).await?,
            schema: settings.ledger.schema.to_string(),
            guards,
            platform_account: settings.ledger.platform_account,
            ranges: ranges.next_power_of_two().clamp(1, RANGES_MAX),
            session,
        })
    }

    /// The parts of `range`, which are checked one after another.
    #[must_use]
    pub fn parts(&self, range: Range) -> Vec<Range> {
        range.parts(self.ranges).collect()
    }

    /// Checks the constraints, triggers, functions and indexes.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn schema(&self) -> Result<Vec<Finding>, LedgerError> {
        let statement = include_str!("verify/indexes.sql");
        let rows = self.ask(statement, &[&self.schema]).await?;
        let read = |row: &tokio_postgres::Row| Finding {
            about: Some(row.get(1)),
            ..Finding::new(kind(row.get(0)))
        };
        let indexes = rows.iter().map(read);
        Ok(self.guards.iter().cloned().chain(indexes).collect())
    }

    /// Checks the outcomes and the entries whose ids are in one of [`Verification::parts`].
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn part(&self, range: Range) -> Result<(Verified, Vec<Finding>), LedgerError> {
        let (mut checked, mut findings) = (Verified::default(), Vec::new());
        let (first, last) = range.ends();
        let platform = &self.platform_account;
        for row in self.ask(&self.outcomes, &[&first, &last, platform]).await? {
            let Some(codes) = row.get::<_, Option<Vec<String>>>(0) else {
                checked.outcomes = row.get(6);
                checked.of_deleted_accounts = row.get(7);
                continue;
            };
            let entries: [Option<Uuid>; 2] = [row.get(4), row.get(5)];
            findings.extend(codes.iter().map(|code| Finding {
                outcome: row.get(1),
                usage: row.get(2),
                account: row.get(3),
                entries: entries.into_iter().flatten().collect(),
                ..Finding::new(kind(code))
            }));
        }
        for row in self.ask(&self.ids, &[&first, &last]).await? {
            findings.extend(unexpected(&row));
        }
        for row in self.ask(&self.entries, &[&first, &last, platform]).await? {
            let Some(code) = row.get::<_, Option<&str>>(0) else {
                checked.legs = row.get(4);
                checked.given = sum(row.get(5));
                checked.taken = sum(row.get(6));
                continue;
            };
            findings.push(Finding {
                usage: row.get(2),
                account: row.get(3),
                entries: vec![row.get(1)],
                ..Finding::new(kind(code))
            });
        }
        Ok((checked, findings))
    }

    async fn ask(
        &self,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, LedgerError> {
        let rows = self.session.client.query(statement, params).await;
        rows.map_err(|error| self.session.classify(&error))
    }
}

/// The objects that keep invalid rows out of the outcomes and differ from the migrations.
async fn guards(session: &Session) -> Result<Vec<Finding>, LedgerError> {
    let looked = async {
        let version = session.client.query_one(VERSION, &[]).await?;
        let newer = version.get::<_, i32>(0) > latest();
        schema_diff(&session.client, ObjectScope::Guards, newer).await
    };
    let guards = session.answered(looked).await?.into_iter();
    let broken = guards.map(|(seen, _)| Finding {
        about: Some(seen),
        ..Finding::new(FindingKind::GuardBroken)
    });
    Ok(broken.collect())
}

/// The finding if an outcome's id does not follow from its request.
fn unexpected(row: &tokio_postgres::Row) -> Option<Finding> {
    let (id, usage, content): (Uuid, Uuid, Uuid) = (row.get(0), row.get(1), row.get(2));
    let request = identity(row.get(3), row.get(4), usage, content);
    let is_reuse: bool = row.get(5);
    let expected = if is_reuse {
        reuse_identity(request, content)
    } else {
        request
    };
    (id != expected).then(|| Finding {
        outcome: Some(id),
        usage: Some(usage),
        ..Finding::new(FindingKind::OutcomeIdUnexpected)
    })
}

fn kind(code: &str) -> FindingKind {
    FindingKind::of_code(code).expect("the statements and the list know the same codes")
}

/// Parses a sum, which SQL returns as numeric in a text.
fn sum(text: &str) -> i128 {
    text.parse().expect("a sum of bigints is a whole number")
}

#[cfg(test)]
mod tests;
