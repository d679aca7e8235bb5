//! What the statement is given: requests to decide, and their decisions.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::outcome::Decision;
use crate::domain::request::{Reference, RevertRequest};

/// Decisions by identity of the outcome and content.
pub(crate) type Decided = HashMap<(Uuid, Uuid), Decision>;

pub(crate) fn find<'a>(decided: &'a Decided, request: &RevertRequest) -> Option<&'a Decision> {
    let first = decided.get(&(request.id, request.content));
    first.or_else(|| decided.get(&(request.reuse_id, request.content)))
}

/// A request that is to be decided.
#[derive(Clone, Copy)]
pub(crate) struct Pending<'a> {
    pub(super) request: &'a RevertRequest,
    /// Its own, or that of a copy.
    last_attempt: bool,
    /// Whether the batch has other contents under its id.
    contested: bool,
    /// Its place in the order of delivery.
    delivered: i32,
}

/// An account, as a request names it.
type NamedAccount<'a> = (Option<Uuid>, Option<&'a Reference>, Option<&'a Reference>);

impl<'a> Pending<'a> {
    pub(crate) fn request(&self) -> &'a RevertRequest {
        self.request
    }

    /// Under which it is decided.
    pub(crate) fn key(&self) -> (Uuid, Uuid) {
        (self.request.id, self.request.content)
    }

    pub(crate) fn usage(&self) -> Uuid {
        self.request.fields.usage_id
    }

    /// The account as the request names it.
    fn account(&self) -> NamedAccount<'a> {
        let fields = &self.request.fields;
        (
            fields.billing_id,
            fields.org_id.as_ref(),
            fields.project_id.as_ref(),
        )
    }
}

impl<'a> From<&'a RevertRequest> for Pending<'a> {
    fn from(request: &'a RevertRequest) -> Self {
        Self {
            request,
            last_attempt: request.last_attempt,
            contested: false,
            delivered: 0,
        }
    }
}

/// How the statement looks for what is decided already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Where the ledger shows that a request may be; another that is fails the statement.
    Optimistic,
    /// For every request. A request that another writer decides is left for the next round.
    Full,
}

impl From<bool> for Lookup {
    fn from(full: bool) -> Self {
        if full { Self::Full } else { Self::Optimistic }
    }
}

/// Every request once, in the order of delivery. Each knows whether others under its id have other
/// content.
pub(crate) fn distinct(requests: &[RevertRequest]) -> Vec<Pending<'_>> {
    let mut seen: HashMap<(Uuid, Uuid), usize> = HashMap::with_capacity(requests.len());
    let mut first_of: HashMap<Uuid, usize> = HashMap::with_capacity(requests.len());
    let mut pending: Vec<Pending> = Vec::with_capacity(requests.len());
    for request in requests {
        let next = pending.len();
        let index = *seen.entry((request.id, request.content)).or_insert(next);
        if index < next {
            // A copy on its last attempt makes the answer final for both.
            pending[index].last_attempt |= request.last_attempt;
            continue;
        }
        pending.push(Pending {
            delivered: i32::try_from(next).unwrap_or(i32::MAX),
            ..request.into()
        });
        let first = *first_of.entry(request.id).or_insert(next);
        if first < next {
            pending[first].contested = true;
            pending[next].contested = true;
        }
    }
    pending
}

/// The statement's arrays, a request an element, ordered by usage and then by delivery.
#[derive(Default)]
pub(crate) struct Params<'a> {
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
    several: Vec<bool>,
    counts: Vec<bool>,
    entry_ids: Vec<Option<Uuid>>,
    platform_legs: Vec<Option<Uuid>>,
    org_names: Vec<Option<&'a str>>,
    project_names: Vec<Option<&'a str>>,
    contested: Vec<bool>,
    delivered: Vec<i32>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(requests: impl Iterator<Item = Pending<'a>>) -> Self {
        let mut sorted: Vec<_> = requests.collect();
        // Stable: requests on one usage stay in the order of their delivery.
        sorted.sort_by_key(|pending| pending.request.fields.usage_id);
        let mut params = Self::default();
        for on_usage in sorted.chunk_by(|one, next| one.usage() == next.usage()) {
            let mut accounts = HashSet::new();
            for pending in on_usage {
                let several = on_usage.len() > 1;
                // Who names the account in another way may mean another account.
                let counts = !several || accounts.insert(pending.account());
                params.push(*pending, several, counts);
            }
        }
        params
    }

    fn push(&mut self, pending: Pending<'a>, several: bool, counts: bool) {
        let request = pending.request;
        let (billing_id, org, project) = pending.account();
        self.ids.push(request.id);
        self.reuse_ids.push(request.reuse_id);
        self.contents.push(request.content);
        self.clients.push(&request.client);
        self.message_ids.push(request.message_id.as_deref());
        self.usage_ids.push(request.fields.usage_id);
        self.amounts.push(request.fields.amount.get());
        self.billing_ids.push(billing_id);
        self.org_ids.push(org.and_then(Reference::id));
        self.project_ids.push(project.and_then(Reference::id));
        self.reasons.push(request.fields.reason.as_deref());
        self.last_attempts.push(pending.last_attempt);
        self.several.push(several);
        self.counts.push(counts);
        let entry = billing_id.map(|account| first_entry(pending.usage(), account));
        self.entry_ids.push(entry);
        self.platform_legs.push(entry.map(platform_leg));
        self.org_names.push(org.and_then(Reference::name));
        self.project_names.push(project.and_then(Reference::name));
        self.contested.push(pending.contested);
        self.delivered.push(pending.delivered);
    }

    /// $1 to $20 of the statement.
    pub(crate) fn arrays(&self) -> [&(dyn ToSql + Sync); 20] {
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
            &self.several,
            &self.counts,
            &self.entry_ids,
            &self.platform_legs,
            &self.org_names,
            &self.project_names,
            &self.contested,
            &self.delivered,
        ]
    }
}

/// Namespace of Frontier's ids of entries that revert a usage.
const FRONTIER: Uuid = Uuid::from_u128(0x9674_16d0_716e_4308_b58f_2468_ac14_f20a);

/// The id of the first entry that reverts a usage, as `revertd.entry_id` computes it with n = 0,
/// which takes PostgreSQL ten times as long.
fn first_entry(usage: Uuid, account: Uuid) -> Uuid {
    Uuid::new_v5(&FRONTIER, format!("{usage}:0:{account}").as_bytes())
}

/// The id of its other leg, as `revertd.platform_leg` computes it.
fn platform_leg(entry: Uuid) -> Uuid {
    let mut bytes = entry.into_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    Uuid::from_bytes(bytes)
}
