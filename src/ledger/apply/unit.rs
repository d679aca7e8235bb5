//! The requests of a batch that are decided together: one, or those of an atomic group.

use uuid::Uuid;

use crate::domain::request::RevertRequest;

/// A request by its id and content.
pub(crate) type RequestKey = (Uuid, Uuid);

/// A request, or the requests of an atomic group.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    /// The index of the first request in its batch.
    pub first: usize,
    /// Never empty.
    pub requests: &'a [RevertRequest],
}

impl<'a> Unit<'a> {
    /// The units of a batch, in order.
    pub fn all(requests: &'a [RevertRequest]) -> Vec<Self> {
        let mut units = Vec::with_capacity(requests.len());
        let mut first = 0;
        for requests in requests.chunk_by(RevertRequest::is_grouped_with) {
            units.push(Unit { first, requests });
            first += requests.len();
        }
        units
    }

    pub fn usages(&self) -> impl Iterator<Item = Uuid> {
        self.requests.iter().map(|request| request.fields.usage_id)
    }
}

pub(super) fn key(request: &RevertRequest) -> RequestKey {
    (request.id, request.content)
}
