//! The distinct requests of a batch.

use std::collections::HashMap;

use uuid::Uuid;

use crate::domain::decide::{Facts, Question};
use crate::domain::outcome::Decision;
use crate::domain::request::RevertRequest;

/// A request by its id and content.
pub(crate) type RequestKey = (Uuid, Uuid);

/// Decisions by request.
pub(super) type Decided = HashMap<RequestKey, Decision>;

/// A request that is to be decided.
#[derive(Clone, Copy)]
pub(super) struct Pending<'a> {
    pub request: &'a RevertRequest,
    /// Whether this is the last attempt of the request, or of an equal one in the batch.
    last_attempt: bool,
}

impl<'a> Pending<'a> {
    pub fn key(&self) -> RequestKey {
        key(self.request)
    }

    pub fn usage(&self) -> Uuid {
        self.request.fields.usage_id
    }

    pub fn question(&self, facts: &'a Facts) -> Question<'a> {
        Question {
            request: self.request,
            is_last_attempt: self.last_attempt,
            facts,
        }
    }
}

pub(super) fn key(request: &RevertRequest) -> RequestKey {
    (request.id, request.content)
}

/// The distinct requests, in the order of delivery.
pub(super) fn distinct(requests: &[RevertRequest]) -> Vec<Pending<'_>> {
    let mut seen: HashMap<RequestKey, usize> = HashMap::with_capacity(requests.len());
    let mut distinct: Vec<Pending> = Vec::with_capacity(requests.len());
    for request in requests {
        let last_attempt = request.last_attempt;
        let index = *seen.entry(key(request)).or_insert(distinct.len());
        if let Some(equal) = distinct.get_mut(index) {
            equal.last_attempt |= last_attempt;
        } else {
            distinct.push(Pending {
                request,
                last_attempt,
            });
        }
    }
    distinct
}
