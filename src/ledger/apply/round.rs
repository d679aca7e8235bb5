//! One try to decide requests and to write the decisions, on one connection.

use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::join3;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::unit::Unit;
use crate::domain::decide::{History, Question, Ruling, decide, needs_history};
use crate::domain::outcome::Decision;
use crate::domain::request::RevertRequest;
use crate::ledger::client::Ledger;
use crate::ledger::error::{StatementError, classify};

/// Which requests are looked up among the outcomes and reverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookUp {
    /// Those that cannot be decided without it. If another request was decided before, a unique key
    /// fails the statement that writes.
    Needed,
    /// All.
    All,
}

/// The longest that a statement waits for a lock, and that it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatementLimits {
    pub lock_timeout: Duration,
    pub statement_timeout: Duration,
}

/// One try, on one connection.
pub(super) struct Round<'a> {
    pub(super) ledger: &'a Ledger,
    client: &'a Object,
    /// Without limits, those of the session hold.
    limits: Option<StatementLimits>,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        ledger: &'a Ledger,
        client: &'a Object,
        limits: Option<StatementLimits>,
    ) -> Self {
        Self {
            ledger,
            client,
            limits,
        }
    }

    /// Decides the requests and writes the decisions. Returns a decision for each.
    pub(super) async fn run(
        &self,
        units: &[Unit<'_>],
        look_up: LookUp,
    ) -> Result<Vec<Decision>, StatementError> {
        let (rulings, now) = self.decide(units, look_up).await?;
        self.write(&requests(units), &rulings, now).await?;
        Ok(rulings.into_iter().map(|ruling| ruling.decision).collect())
    }

    /// The rulings on the requests, and the time of the decision.
    pub(super) async fn decide(
        &self,
        units: &[Unit<'_>],
        look_up: LookUp,
    ) -> Result<(Vec<Ruling>, Timestamp), StatementError> {
        let requests = requests(units);
        let facts = self.facts(&requests).await?;
        let questions: Vec<_> = requests
            .into_iter()
            .zip(facts.each())
            .map(|(request, facts)| Question { request, facts })
            .collect();
        let rulings = self.rulings(&questions, look_up, facts.now).await?;
        Ok((rulings, facts.now))
    }

    async fn rulings(
        &self,
        questions: &[Question<'_>],
        look_up: LookUp,
        now: Timestamp,
    ) -> Result<Vec<Ruling>, StatementError> {
        let policy = self.ledger.policy;
        let needed = match look_up {
            LookUp::All => vec![true; questions.len()],
            LookUp::Needed => {
                // Most batches need no history. If this one does, it is decided once more with it.
                let rulings = decide(questions, &History::default(), policy, now);
                let needed = needs_history(questions, &rulings);
                if !needed.contains(&true) {
                    return Ok(rulings);
                }
                needed
            }
        };
        let history = self.history(questions, &needed).await?;
        Ok(decide(questions, &history, policy, now))
    }

    /// Runs a statement. With limits, the whole transaction is sent at once, so that the session is
    /// never left within one.
    pub(super) async fn query(
        &self,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        let classify = |error| self.classify(&error);
        let statement = self.client.prepare_cached(statement).await;
        let statement = statement.map_err(classify)?;
        let Some(limits) = self.limits else {
            return self
                .client
                .query(&statement, params)
                .await
                .map_err(classify);
        };
        let opening = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
            limits.lock_timeout.as_millis(),
            limits.statement_timeout.as_millis()
        );
        let (opened, rows, ended) = join3(
            self.client.batch_execute(&opening),
            self.client.query(&statement, params),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        opened.map_err(classify)?;
        let rows = rows.map_err(classify)?;
        ended.map_err(classify)?;
        Ok(rows)
    }

    pub(super) fn classify(&self, error: &Error) -> StatementError {
        classify(error, &self.ledger.host)
    }
}

fn requests<'a>(units: &[Unit<'a>]) -> Vec<&'a RevertRequest> {
    units.iter().flat_map(|unit| unit.requests).collect()
}
