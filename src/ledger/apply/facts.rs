//! Reads the facts of requests: `facts.sql`.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::round::Round;
use crate::domain::decide::{Account, EntryKind, Facts, UsageFacts};
use crate::domain::request::{Reference, RevertRequest};
use crate::ledger::error::StatementError;

/// The facts of a batch.
pub(super) struct BatchFacts {
    /// The time of the database's clock at which they were read; the time of the decision.
    pub now: Timestamp,
    facts: Vec<Facts>,
    /// The index of each request's facts.
    of_request: Vec<usize>,
}

impl BatchFacts {
    /// The facts of each request, in order.
    pub fn each(&self) -> impl Iterator<Item = &Facts> {
        self.of_request.iter().map(|index| &self.facts[*index])
    }
}

/// The parts of a request on which its facts depend.
type Subject<'a> = (
    &'a str,
    Uuid,
    Option<Uuid>,
    Option<&'a Reference>,
    Option<&'a Reference>,
);

fn subject(request: &RevertRequest) -> Subject<'_> {
    let fields = &request.fields;
    (
        &request.client,
        fields.usage_id,
        fields.billing_id,
        fields.org_id.as_ref(),
        fields.project_id.as_ref(),
    )
}

/// The arrays of the statement. Requests with one subject have one element.
#[derive(Default)]
struct Subjects<'a> {
    clients: Vec<&'a str>,
    usage_ids: Vec<Uuid>,
    billing_ids: Vec<Option<Uuid>>,
    org_ids: Vec<Option<Uuid>>,
    org_names: Vec<Option<&'a str>>,
    project_ids: Vec<Option<Uuid>>,
    project_names: Vec<Option<&'a str>>,
}

impl<'a> Subjects<'a> {
    fn push(&mut self, (client, usage_id, billing_id, org, project): Subject<'a>) {
        self.clients.push(client);
        self.usage_ids.push(usage_id);
        self.billing_ids.push(billing_id);
        self.org_ids.push(org.and_then(Reference::id));
        self.org_names.push(org.and_then(Reference::name));
        self.project_ids.push(project.and_then(Reference::id));
        self.project_names.push(project.and_then(Reference::name));
    }
}

impl Round<'_> {
    pub(super) async fn facts(
        &self,
        requests: &[&RevertRequest],
    ) -> Result<BatchFacts, StatementError> {
        let mut seen = HashMap::with_capacity(requests.len());
        let mut subjects = Subjects::default();
        let mut of_request = Vec::with_capacity(requests.len());
        for request in requests {
            let (subject, next) = (subject(request), seen.len());
            let index = *seen.entry(subject).or_insert(next);
            if index == next {
                subjects.push(subject);
            }
            of_request.push(index);
        }
        let ledger = self.ledger;
        let rows = self
            .query(
                &ledger.statements.facts,
                &[
                    &subjects.clients,
                    &subjects.usage_ids,
                    &subjects.billing_ids,
                    &subjects.org_ids,
                    &subjects.org_names,
                    &subjects.project_ids,
                    &subjects.project_names,
                    &ledger.max_age_secs,
                    &ledger.platform_account,
                    &ledger.policy.needs_grants,
                ],
            )
            .await?;
        let mut now = Timestamp::UNIX_EPOCH;
        let mut facts = vec![Facts::default(); seen.len()];
        for row in &rows {
            let (ord, at, read) = read(row).map_err(|error| self.classify(&error))?;
            now = at;
            if let Some(facts) = facts.get_mut(ord) {
                *facts = read;
            }
        }
        Ok(BatchFacts {
            now,
            facts,
            of_request,
        })
    }
}

/// The index of a row's subject, the time, and the facts.
fn read(row: &Row) -> Result<(usize, Timestamp, Facts), Error> {
    let ord: i64 = row.try_get(0)?;
    let account_id: Option<Uuid> = row.try_get(3)?;
    let org_id: Option<Uuid> = row.try_get(4)?;
    let account = account_id.zip(org_id);
    let is_true = |column| Ok(row.try_get::<_, Option<bool>>(column)?.unwrap_or(false));
    let usage = match row.try_get(5)? {
        None => None,
        Some(amount) => Some(UsageFacts {
            kind: match (is_true(6)?, is_true(7)?) {
                (true, _) => EntryKind::Usage,
                (false, true) => EntryKind::Revert,
                (false, false) => EntryKind::Other,
            },
            amount,
            is_closed: is_true(8)?,
            is_named: is_true(9)?,
            created_later: if is_true(10)? {
                Some(row.try_get(11)?)
            } else {
                None
            },
        }),
    };
    let facts = Facts {
        is_granted: is_true(2)?,
        account: account.map(|(id, org_id)| Account { id, org_id }),
        usage,
    };
    // WITH ORDINALITY counts from 1.
    let ord = usize::try_from(ord - 1).unwrap_or(usize::MAX);
    Ok((ord, row.try_get(1)?, facts))
}
