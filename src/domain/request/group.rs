//! A group: one body that carries many requests.
//!
//! A fault of its structure makes the whole group malformed; a field that breaks a rule makes only
//! its own request invalid. Each request has the identity and the content of the same request sent
//! alone under its id.

use std::collections::HashMap;

use super::body::{Fields, Undecodable, Violation, too_many_bytes};
use super::envelope::{NUL, has_nul};
use super::fields::{REPEATED, RawFields};
use super::group_request::{GroupRequest, request};
use super::json::{Given, Member, each_element, malformed, utf8};

/// The bounds of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// `amqp.max_message_bytes`: the bytes of a request, alone or in a group.
    pub message_bytes: u64,
    /// `amqp.max_group_bytes`: the bytes of a group.
    pub group_bytes: u64,
    /// `amqp.max_group`: the requests of a group.
    pub group_requests: usize,
}

impl RequestLimits {
    /// The larger bound of a body in bytes, and its setting.
    #[must_use]
    pub fn largest(&self) -> (u64, &'static str) {
        self.of_requests().max(self.of_groups())
    }

    /// The bound of a single request in bytes, and its setting.
    #[must_use]
    pub fn of_requests(&self) -> (u64, &'static str) {
        (self.message_bytes, "amqp.max_message_bytes")
    }

    /// The bound of a group in bytes, and its setting.
    #[must_use]
    pub fn of_groups(&self) -> (u64, &'static str) {
        (self.group_bytes, "amqp.max_group_bytes")
    }
}

/// A parsed body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A single request.
    Request(Fields),
    /// A group of requests.
    Group(Group<'a>),
}

/// A group whose structure is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Whether all requests are reverted in one transaction, or none.
    pub atomic: bool,
    /// How the events are sent.
    pub replies: Replies,
    /// 1 to [`RequestLimits::group_requests`] requests.
    pub requests: Vec<GroupRequest<'a>>,
}

/// How the events of a group are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// In batches, one for each routing key.
    Batch,
    /// Each in a message of its own.
    Each,
}

/// Parses a body: an object with a member `requests` is a group, any other a single request.
///
/// # Errors
/// Those of [`decode`](super::decode) for a single request; [`Undecodable::Malformed`] for a body
/// that is too large and for a group whose structure is at fault.
pub fn parse<'a>(
    body: &'a [u8],
    message_id: Option<&str>,
    limits: &RequestLimits,
) -> Result<Body<'a>, Undecodable> {
    let bytes = body.len() as u64;
    let (of_requests, of_groups) = (limits.of_requests(), limits.of_groups());
    let within = |(max, key)| {
        let text = (bytes > max).then(|| too_many_bytes(bytes, max, key));
        text.map_or(Ok(()), |text| Err(Undecodable::Malformed(text)))
    };
    within(limits.largest())?;
    let text = utf8(body)?;
    let mut members = GroupMembers::default();
    let fields = RawFields::read(text, |key, value| members.add(key, value))
        .map_err(|error| malformed(text, &error))?;
    if members.requests.is_missing() {
        within(of_requests)?;
        return Ok(Body::Request(fields.check()?));
    }
    within(of_groups)?;
    let group = members.group(&fields, message_id, limits);
    group.map(Body::Group).map_err(Undecodable::Malformed)
}

/// The members of a group, except the fields that it gives to its requests.
#[derive(Default)]
struct GroupMembers<'a> {
    requests: Member<'a>,
    atomic: Member<'a>,
    replies: Member<'a>,
}

impl<'a> GroupMembers<'a> {
    fn add(&mut self, key: &str, value: &'a str) {
        match key {
            "requests" => self.requests.add(value),
            "atomic" => self.atomic.add(value),
            "replies" => self.replies.add(value),
            _ => {}
        }
    }

    fn group(
        &self,
        defaults: &RawFields<'a>,
        message_id: Option<&str>,
        limits: &RequestLimits,
    ) -> Result<Group<'a>, String> {
        let message_id = match message_id {
            None => return Err("a group needs a message_id".into()),
            Some(id) if has_nul(id) => return Err(format!("message_id {NUL}")),
            Some(id) => id,
        };
        let all = [
            ("requests", &self.requests),
            ("atomic", &self.atomic),
            ("replies", &self.replies),
        ];
        if let Some((name, _)) = all.iter().find(|(_, member)| member.is_repeated()) {
            return Err(format!("{name} {REPEATED}"));
        }
        let atomic = self.atomic()?;
        let replies = self.replies()?;
        if let Some(Violation { field, description }) = defaults.clone().check_defaults().first() {
            return Err(format!("{field} beside requests: {description}"));
        }
        let requests = self
            .elements(limits)?
            .iter()
            .enumerate()
            .map(|(index, json)| request(json, index, message_id, defaults, limits.message_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        check_ids(message_id, &requests)?;
        Ok(Group {
            atomic,
            replies,
            requests,
        })
    }

    fn atomic(&self) -> Result<bool, String> {
        match &self.atomic.value {
            _ if self.atomic.is_absent() => Ok(false),
            Given::Other("true") => Ok(true),
            Given::Other("false") => Ok(false),
            Given::Absent | Given::Text(_) | Given::NoText | Given::Number(_) | Given::Other(_) => {
                Err("atomic must be true or false".into())
            }
        }
    }

    fn replies(&self) -> Result<Replies, String> {
        match &self.replies.value {
            _ if self.replies.is_absent() => Ok(Replies::Batch),
            Given::Text(text) if text == "each" => Ok(Replies::Each),
            Given::Absent | Given::Text(_) | Given::NoText | Given::Number(_) | Given::Other(_) => {
                Err("replies must be \"each\", or absent".into())
            }
        }
    }

    /// The elements of `requests`, in any form.
    fn elements(&self, limits: &RequestLimits) -> Result<Vec<&'a str>, String> {
        let Given::Other(text) = self.requests.value else {
            return Err("requests must be an array".into());
        };
        let (mut elements, mut count) = (Vec::new(), 0_usize);
        let max = limits.group_requests;
        let each = |element| {
            count += 1;
            if count <= max {
                elements.push(element);
            }
        };
        // The text is JSON, so only its kind can be wrong.
        each_element(text, each).map_err(|_| "requests must be an array")?;
        match count {
            0 => Err("requests is empty".into()),
            _ if count > max => Err(format!(
                "requests has {count} elements, more than {max} (amqp.max_group)"
            )),
            _ => Ok(elements),
        }
    }
}

/// The ids of the requests are unique, and none is that of the group, which the event of the group
/// as a whole has.
fn check_ids(message_id: &str, requests: &[GroupRequest<'_>]) -> Result<(), String> {
    let mut seen = HashMap::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        if request.id == message_id {
            return Err(format!("requests[{index}] has the message_id of the group"));
        }
        if let Some(first) = seen.insert(request.id.as_ref(), index) {
            return Err(format!("requests[{index}] has the id of requests[{first}]"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
