//! A batch through the statement: once, and again for what a concurrent writer decided meanwhile.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Ledger;
use super::error::LedgerError;
use super::split::Split;
use crate::outcome::{Decision, Failure, Refusal, Verdict};
use crate::request::RevertRequest;

/// Rounds that decide nothing, for requests that a concurrent writer left undecided. One is the rule under contention;
/// each further one needs another writer to be in the way again.
pub(super) const ROUNDS: usize = 16;

/// Rounds in which further contents of an id are decided one after another. Nobody sends so many in a batch but to keep
/// others waiting.
const CONTENT_ROUNDS: usize = 16;

pub(super) async fn apply(
    ledger: &Ledger,
    requests: &[RevertRequest],
) -> Result<Vec<Decision>, LedgerError> {
    let (mut pending, mut later) = distinct(requests);
    let mut split = Split::new(ledger, pending.len());
    let (mut round, mut in_vain) = (0, 0);
    while !pending.is_empty() && in_vain < ROUNDS {
        let care = Care::from(round > 0 || ledger.is_wary());
        split.run(&pending, care).await?;
        let asked = pending.len();
        pending.retain(|pending| find(&split.decided, pending.request).is_none());
        round += 1;
        in_vain += usize::from(pending.len() == asked);
        if round < CONTENT_ROUNDS {
            let next = next_contents(&mut later, &pending, &split.decided);
            pending.extend(next);
        }
    }
    let decided = split.finish();
    let undecided = || {
        Decision::Failed(Failure::Unavailable(
            "other writers, or other requests under its message_id, were decided first time and again".into(),
        ))
    };
    Ok(requests
        .iter()
        .map(|request| find(&decided, request).cloned().unwrap_or_else(undecided))
        .collect())
}

/// Decisions by identity of the outcome and content.
pub(super) type Decided = HashMap<(Uuid, Uuid), Decision>;

pub(super) fn find<'a>(decided: &'a Decided, request: &RevertRequest) -> Option<&'a Decision> {
    let first = decided.get(&(request.id, request.content));
    first.or_else(|| decided.get(&(request.reuse_id, request.content)))
}

/// A request that is to be decided.
#[derive(Clone, Copy)]
pub(super) struct Pending<'a> {
    request: &'a RevertRequest,
    /// Its own, or that of a copy.
    last_attempt: bool,
}

impl<'a> Pending<'a> {
    pub(super) fn request(&self) -> &'a RevertRequest {
        self.request
    }

    /// Under which it is decided.
    pub(super) fn key(&self) -> (Uuid, Uuid) {
        (self.request.id, self.request.content)
    }

    pub(super) fn usage(&self) -> Uuid {
        self.request.fields.usage_id
    }

    /// The account as the request names it.
    fn account(&self) -> [Option<Uuid>; 3] {
        let fields = &self.request.fields;
        [fields.billing_id, fields.org_id, fields.project_id]
    }
}

impl<'a> From<&'a RevertRequest> for Pending<'a> {
    fn from(request: &'a RevertRequest) -> Self {
        Self {
            request,
            last_attempt: request.last_attempt,
        }
    }
}

/// How the statement looks for what is decided already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Where the ledger shows that a request may be; another that is fails the statement.
    Plain,
    /// For every request; whoever is being decided elsewhere is left for the next round.
    Full,
}

impl From<bool> for Care {
    fn from(full: bool) -> Self {
        if full { Self::Full } else { Self::Plain }
    }
}

/// Every request once; and apart, for later rounds, those whose id came before in this batch with
/// other content, so that the one delivered first is the first.
pub(super) fn distinct(requests: &[RevertRequest]) -> (Vec<Pending<'_>>, Vec<Pending<'_>>) {
    let mut seen: HashMap<(Uuid, Uuid), (bool, usize)> = HashMap::with_capacity(requests.len());
    let mut ids = HashSet::with_capacity(requests.len());
    let (mut first, mut later) = (Vec::with_capacity(requests.len()), Vec::new());
    for request in requests {
        let key = (request.id, request.content);
        if let Some((is_later, index)) = seen.get(&key) {
            // A copy on its last attempt makes the answer final for both.
            let list: &mut Vec<Pending> = if *is_later { &mut later } else { &mut first };
            list[*index].last_attempt |= request.last_attempt;
            continue;
        }
        let is_later = !ids.insert(request.id);
        let list = if is_later { &mut later } else { &mut first };
        seen.insert(key, (is_later, list.len()));
        list.push(request.into());
    }
    (first, later)
}

/// Of the further contents of ids, those whose turn it is: the next one of each, since whichever is decided first is the
/// request; once one is stored, all others, which it refuses.
pub(super) fn next_contents<'a>(
    later: &mut Vec<Pending<'a>>,
    pending: &[Pending<'a>],
    decided: &Decided,
) -> Vec<Pending<'a>> {
    if later.is_empty() {
        return Vec::new();
    }
    let stored = decided.iter().filter(|(_, decision)| is_stored(decision));
    let stored: HashSet<_> = stored.map(|((id, _), _)| *id).collect();
    let mut taken: HashSet<_> = pending.iter().map(|pending| pending.request.id).collect();
    let (next, rest) = later.drain(..).partition(|pending| {
        let id = pending.request.id;
        taken.insert(id) || stored.contains(&id)
    });
    *later = rest;
    next
}

/// Whether a request with a message id is remembered by it.
fn is_stored(decision: &Decision) -> bool {
    match decision {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => match &outcome.verdict {
            Verdict::Refused(
                Refusal::ClientUnknown
                | Refusal::InvalidField(_)
                | Refusal::OrgNotGranted
                | Refusal::BillingAccountNotFound,
            ) => false,
            Verdict::Applied(_)
            | Verdict::Refused(
                Refusal::RequestIdReused
                | Refusal::UsageNotFound
                | Refusal::RevertOfRevert
                | Refusal::NotAUsage
                | Refusal::RevertWindowClosed
                | Refusal::AlreadyReverted(_)
                | Refusal::AmountExceedsUsage(_),
            ) => true,
        },
        Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => false,
    }
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
    several: Vec<bool>,
    counts: Vec<bool>,
    entry_ids: Vec<Option<Uuid>>,
    platform_legs: Vec<Option<Uuid>>,
}

impl<'a> Params<'a> {
    pub(super) fn new(requests: impl Iterator<Item = Pending<'a>>) -> Self {
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
        self.ids.push(request.id);
        self.reuse_ids.push(request.reuse_id);
        self.contents.push(request.content);
        self.clients.push(&request.client);
        self.message_ids.push(request.message_id.as_deref());
        self.usage_ids.push(request.fields.usage_id);
        self.amounts.push(request.fields.amount.get());
        self.billing_ids.push(request.fields.billing_id);
        self.org_ids.push(request.fields.org_id);
        self.project_ids.push(request.fields.project_id);
        self.reasons.push(request.fields.reason.as_deref());
        self.last_attempts.push(pending.last_attempt);
        self.several.push(several);
        self.counts.push(counts);
        let fields = &request.fields;
        let entry = fields
            .billing_id
            .map(|account| first_entry(fields.usage_id, account));
        self.entry_ids.push(entry);
        self.platform_legs.push(entry.map(platform_leg));
    }

    /// $1 to $16 of the statement.
    pub(super) fn arrays(&self) -> [&(dyn ToSql + Sync); 16] {
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
        ]
    }
}

/// Namespace of Frontier's ids of entries that revert a usage.
const FRONTIER: Uuid = Uuid::from_u128(0x9674_16d0_716e_4308_b58f_2468_ac14_f20a);

/// The id of the first entry that reverts a usage, as `revertd.entry_id` computes it with n = 0, which takes PostgreSQL
/// ten times as long.
fn first_entry(usage: Uuid, account: Uuid) -> Uuid {
    Uuid::new_v5(&FRONTIER, format!("{usage}:0:{account}").as_bytes())
}

/// The id of its other leg, as `revertd.platform_leg` computes it.
fn platform_leg(entry: Uuid) -> Uuid {
    let mut bytes = entry.into_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    Uuid::from_bytes(bytes)
}
