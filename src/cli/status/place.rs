//! The requests of a queued message that a subject names.

use crate::broker::QueuedMessage;
use crate::domain::request::{RequestSummary, is_derived};
use crate::ledger::admin::history::Subject;

/// The part of a message that was found.
#[derive(Clone, Debug)]
pub enum Place {
    /// A single request.
    Single,
    /// A group as a whole, with its number of requests.
    Group(usize),
    /// A request of a group.
    Member { group: String, index: usize },
}

/// The requests of a message that the subject names, with their ids.
pub fn places(subject: &Subject, letter: &QueuedMessage) -> Vec<(Option<String>, Place)> {
    let summary = letter.summary();
    let whole = match summary.group_size() {
        Some(size) => Place::Group(size),
        None => Place::Single,
    };
    let is_whole = match subject {
        Subject::Usages(usages) => {
            let usage = summary.usage_id();
            summary.members().is_empty() && usage.is_some_and(|usage| usages.contains(&usage))
        }
        Subject::Request { client, .. }
            if client.as_ref().is_some_and(|it| *it != letter.client) =>
        {
            return Vec::new();
        }
        Subject::Request { message_id, .. } => {
            let id = letter.message_id.as_deref();
            id.is_some_and(|id| id == message_id || is_derived(id, message_id))
        }
    };
    if is_whole {
        return vec![(letter.message_id.clone(), whole)];
    }
    let is_named = |request: &RequestSummary| match subject {
        Subject::Usages(usages) => {
            let usage = request.fragments.usage_id;
            usage.is_some_and(|usage| usages.contains(&usage))
        }
        Subject::Request { message_id, .. } => request.id == *message_id,
    };
    let members = summary.members().iter().enumerate();
    let named = members.filter(|(_, request)| is_named(request));
    let place = |(index, request): (usize, &RequestSummary)| {
        let group = letter.message_id.clone().unwrap_or_default();
        (Some(request.id.clone()), Place::Member { group, index })
    };
    named.map(place).collect()
}
