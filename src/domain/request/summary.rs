//! The requests that a body shows to operators' tools, as far as it can be read.

use uuid::Uuid;

use super::body::{Fragments, Undecodable};
use super::group::{Body, RequestLimits, parse};

/// Operators see every group, also if a worker's limits would refuse it.
const NO_LIMITS: RequestLimits = RequestLimits {
    message_bytes: u64::MAX,
    group_bytes: u64::MAX,
    group_requests: usize::MAX,
};

/// The requests of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodySummary {
    /// A single request, or a body that cannot be read.
    Request(Fragments),
    /// The requests of a group, in their order.
    Group(Vec<RequestSummary>),
}

/// A request of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSummary {
    /// Its id.
    pub id: String,
    /// Its valid fields.
    pub fragments: Fragments,
}

impl BodySummary {
    /// The requests of any body that is sent with this message id.
    #[must_use]
    pub fn of(body: &[u8], message_id: Option<&str>) -> Self {
        let group = match parse(body, message_id, &NO_LIMITS) {
            Ok(Body::Request(fields)) => return Self::Request(Fragments::from(&fields)),
            Ok(Body::Group(group)) => group,
            Err(Undecodable::Invalid { fragments, .. }) => return Self::Request(fragments),
            Err(Undecodable::Malformed(_)) => return Self::Request(Fragments::default()),
        };
        let requests = group.requests.into_iter().map(|request| RequestSummary {
            id: request.id.into_owned(),
            fragments: match request.fields {
                Ok(fields) => Fragments::from(&fields),
                Err(invalid) => invalid.fragments,
            },
        });
        Self::Group(requests.collect())
    }

    /// The requests of a group; none of a single request.
    #[must_use]
    pub fn members(&self) -> &[RequestSummary] {
        match self {
            Self::Request(_) => &[],
            Self::Group(requests) => requests,
        }
    }

    /// The number of requests of a group.
    #[must_use]
    pub fn group_size(&self) -> Option<usize> {
        match self {
            Self::Request(_) => None,
            Self::Group(requests) => Some(requests.len()),
        }
    }

    /// The valid fields of each request.
    pub fn fragments(&self) -> impl Iterator<Item = &Fragments> {
        let single = match self {
            Self::Request(fragments) => Some(fragments),
            Self::Group(_) => None,
        };
        let members = self.members().iter().map(|request| &request.fragments);
        single.into_iter().chain(members)
    }

    /// The usage, if all requests name the same one.
    #[must_use]
    pub fn usage_id(&self) -> Option<Uuid> {
        self.common(|fragments| fragments.usage_id)
    }

    /// The id of the org, if all requests name the same one.
    #[must_use]
    pub fn org_id(&self) -> Option<Uuid> {
        self.common(|fragments| fragments.org_id)
    }

    fn common(&self, field: impl Fn(&Fragments) -> Option<Uuid>) -> Option<Uuid> {
        let mut values = self.fragments().map(field);
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &[u8] = br#"{"org_id": "0a000000-0000-4000-8000-000000000001", "requests": [
        {"usage_id": "0d000000-0000-4000-8000-000000000001", "amount": 1},
        {"usage_id": "0d000000-0000-4000-8000-000000000002", "amount": 0, "request_id": "own"}]}"#;

    #[test]
    fn a_summary_has_the_requests_of_a_group() {
        let summary = BodySummary::of(GROUP, Some("job"));
        let ids: Vec<_> = summary.members().iter().map(|one| &one.id).collect();
        assert_eq!(ids, ["job/0", "own"]);
        let usages: Vec<_> = summary.fragments().map(|one| one.usage_id).collect();
        assert!(usages[0] != usages[1] && usages.iter().all(Option::is_some));
        assert_eq!(summary.group_size(), Some(2));
        assert_eq!(summary.usage_id(), None, "several");
        assert!(summary.org_id().is_some(), "one org for both");
    }

    #[test]
    fn a_summary_of_a_broken_group_is_empty() {
        let empty = BodySummary::Request(Fragments::default());
        assert_eq!(BodySummary::of(GROUP, None), empty, "it has no message_id");
        assert_eq!(BodySummary::of(b"rubbish", Some("job")), empty);
        let single = br#"{"usage_id": "0d000000-0000-4000-8000-000000000001"}"#;
        let summary = BodySummary::of(single, None);
        assert!(
            summary.usage_id().is_some(),
            "a field of an invalid request"
        );
        assert_eq!(summary.group_size(), None);
    }
}
