//! A batch through the statement: once, and again for what a concurrent writer decided meanwhile; in
//! halves where it fails, so that only a bad request suffers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Ledger;
use super::error::{LedgerError, Trouble};
use super::row::Row;
use crate::outcome::{Decision, Failure};
use crate::patience::Patience;
use crate::request::RevertRequest;

/// Rounds for requests that a concurrent writer left undecided. One is the rule under contention; each
/// further one needs another writer to be in the way again.
const ROUNDS: usize = 16;

/// Tries of a statement that met a deadlock, a serialization failure or another writer's entry.
const CONTENDED_TRIES: usize = 8;

pub(super) async fn apply(
    ledger: &Ledger,
    requests: &[RevertRequest],
) -> Result<Vec<Decision>, LedgerError> {
    let (mut pending, mut later) = distinct(requests);
    let mut decided = HashMap::with_capacity(pending.len());
    for _ in 0..ROUNDS {
        if pending.is_empty() {
            break;
        }
        run_in_parts(ledger, &pending, &mut decided).await?;
        pending.retain(|request| find(&decided, request).is_none());
        pending.append(&mut later);
    }
    let undecided = || {
        Decision::Failed(Failure::Unavailable(
            "other writers kept deciding on this usage".into(),
        ))
    };
    Ok(requests
        .iter()
        .map(|request| find(&decided, request).cloned().unwrap_or_else(undecided))
        .collect())
}

/// Decisions by identity of the outcome and content.
type Decided = HashMap<(Uuid, Uuid), Decision>;

fn find<'a>(decided: &'a Decided, request: &RevertRequest) -> Option<&'a Decision> {
    let first = decided.get(&(request.id, request.content));
    first.or_else(|| decided.get(&(request.reuse_id, request.content)))
}

/// Every request once; and apart, for a second round, those whose id came before in this batch with
/// other content, so that the one delivered first is the first.
fn distinct(requests: &[RevertRequest]) -> (Vec<RevertRequest>, Vec<RevertRequest>) {
    let mut seen: HashMap<(Uuid, Uuid), (bool, usize)> = HashMap::with_capacity(requests.len());
    let mut ids = HashSet::with_capacity(requests.len());
    let (mut first, mut later) = (Vec::with_capacity(requests.len()), Vec::new());
    for request in requests {
        let key = (request.id, request.content);
        if let Some((is_later, index)) = seen.get(&key) {
            // A copy on its last attempt makes the answer final for both.
            let list: &mut Vec<RevertRequest> = if *is_later { &mut later } else { &mut first };
            list[*index].last_attempt |= request.last_attempt;
            continue;
        }
        let is_later = !ids.insert(request.id);
        let list = if is_later { &mut later } else { &mut first };
        seen.insert(key, (is_later, list.len()));
        list.push(request.clone());
    }
    (first, later)
}

/// Runs the requests in one statement, or, where that fails for a cause of theirs, each half by itself.
async fn run_in_parts(
    ledger: &Ledger,
    requests: &[RevertRequest],
    decided: &mut Decided,
) -> Result<(), LedgerError> {
    // A stack with the left half on top keeps the order of delivery.
    let mut parts = vec![requests];
    while let Some(part) = parts.pop() {
        let trouble = match run_contended(ledger, part).await {
            Ok(rows) => {
                for row in rows {
                    let decision = if row.is_final {
                        Decision::Decided(row.outcome.clone())
                    } else {
                        Decision::NotYet
                    };
                    decided.insert((row.outcome.id, row.content), decision);
                }
                continue;
            }
            Err(trouble) => trouble,
        };
        let failure = match trouble {
            Trouble::Unavailable(error) => return Err(error),
            Trouble::Contended(text) => Failure::Unavailable(text),
            Trouble::Rejected(text) => Failure::RetriesExhausted(text),
        };
        if let [request] = part {
            let key = (request.id, request.content);
            decided.insert(key, Decision::Failed(failure));
        } else {
            let (left, right) = part.split_at(part.len() / 2);
            parts.push(right);
            parts.push(left);
        }
    }
    Ok(())
}

async fn run_contended(ledger: &Ledger, part: &[RevertRequest]) -> Result<Vec<Row>, Trouble> {
    let params = Params::new(part.iter());
    let mut patience = Patience::new(Duration::from_millis(2), Duration::from_millis(200));
    for _ in 1..CONTENDED_TRIES {
        match ledger.run(&params).await {
            Err(Trouble::Contended(_)) => tokio::time::sleep(patience.next_wait()).await,
            done => return done,
        }
    }
    ledger.run(&params).await
}

/// The statement's arrays, a request an element, ordered by usage and then by delivery.
#[derive(Default)]
pub(super) struct Params<'a> {
    ids: Vec<Uuid>,
    reuse_ids: Vec<Uuid>,
    contents: Vec<Uuid>,
    clients: Vec<&'a str>,
    message_ids: Vec<Option<&'a str>>,
    usage_ids: Vec<Uuid>,
    amounts: Vec<i64>,
    billing_ids: Vec<Option<Uuid>>,
    org_ids: Vec<Option<Uuid>>,
    project_ids: Vec<Option<Uuid>>,
    reasons: Vec<Option<&'a str>>,
    last_attempts: Vec<bool>,
}

impl<'a> Params<'a> {
    pub(super) fn new(requests: impl Iterator<Item = &'a RevertRequest>) -> Self {
        let mut sorted: Vec<_> = requests.collect();
        // Stable: requests on one usage stay in the order of their delivery.
        sorted.sort_by_key(|request| request.fields.usage_id);
        let mut params = Self::default();
        for request in sorted {
            params.ids.push(request.id);
            params.reuse_ids.push(request.reuse_id);
            params.contents.push(request.content);
            params.clients.push(&request.client);
            params.message_ids.push(request.message_id.as_deref());
            params.usage_ids.push(request.fields.usage_id);
            params.amounts.push(request.fields.amount.get());
            params.billing_ids.push(request.fields.billing_id);
            params.org_ids.push(request.fields.org_id);
            params.project_ids.push(request.fields.project_id);
            params.reasons.push(request.fields.reason.as_deref());
            params.last_attempts.push(request.last_attempt);
        }
        params
    }

    /// $1 to $12 of the statement.
    pub(super) fn arrays(&self) -> [&(dyn ToSql + Sync); 12] {
        [
            &self.ids,
            &self.reuse_ids,
            &self.contents,
            &self.clients,
            &self.message_ids,
            &self.usage_ids,
            &self.amounts,
            &self.billing_ids,
            &self.org_ids,
            &self.project_ids,
            &self.reasons,
            &self.last_attempts,
        ]
    }
}
