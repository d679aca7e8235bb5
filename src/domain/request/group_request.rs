//! A request of a group: an element of `requests`, with its id and the fields that the group gives.

use std::borrow::Cow;

use super::body::{Fields, Fragments, InvalidFields, Violation};
use super::envelope::{Envelope, NUL, has_nul};
use super::fields::{NO_TEXT, REPEATED, RawFields};
use super::json::{Given, Member};

/// The largest number of bytes of a request's id: the bound that AMQP sets for `message_id`.
pub const REQUEST_ID_MAX_BYTES: usize = 255;

/// A request of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRequest<'a> {
    /// Its id, unique in the group: its `request_id`, or else `<message_id>/<index>`.
    pub id: Cow<'a, str>,
    /// Its fields, those that the group gives included.
    pub fields: Result<Fields, InvalidFields>,
    /// Its element of `requests`.
    json: &'a str,
    /// Whether the group gives a field that the element lacks.
    inherits: bool,
}

impl<'a> GroupRequest<'a> {
    /// The body with which the request can be sent alone: its element, or its fields as JSON if the
    /// group gives some of them.
    #[must_use]
    pub fn body(&self) -> Cow<'a, [u8]> {
        match &self.fields {
            Ok(fields) if self.inherits => Cow::Owned(
                serde_json::to_vec(fields).expect("text and numbers are JSON, and memory takes it"),
            ),
            Ok(_) | Err(_) => Cow::Borrowed(self.json.as_bytes()),
        }
    }

    /// The envelope with which the request can be sent alone, from that of its group.
    #[must_use]
    pub fn envelope(&self, group: &Envelope) -> Envelope {
        Envelope {
            message_id: Some(self.id.clone().into_owned()),
            ..group.clone()
        }
    }
}

/// The request of the element at `index`, of at most `max_bytes`; or how the element breaks the
/// structure of its group.
pub(super) fn request<'a>(
    json: &'a str,
    index: usize,
    message_id: &str,
    defaults: &RawFields<'a>,
    max_bytes: u64,
) -> Result<GroupRequest<'a>, String> {
    let bytes = json.len() as u64;
    if bytes > max_bytes {
        let text = format!("has {bytes} bytes, more than {max_bytes} (amqp.max_message_bytes)");
        return Err(format!("requests[{index}] {text}"));
    }
    let (mut id, mut nested) = (Member::default(), Member::default());
    let read = RawFields::read(json, |key, value| match key {
        "request_id" | "requestId" => id.add(value),
        "requests" => nested.add(value),
        _ => {}
    });
    let Ok(mut fields) = read else {
        return Err(format!("requests[{index}] is not a JSON object"));
    };
    if !nested.is_missing() {
        return Err(format!(
            "requests[{index}] has a member requests: a group can't hold a group"
        ));
    }
    let inherits = fields.inherit(defaults);
    let (id, violation) = match request_id(id) {
        Ok(Some(id)) => (id, None),
        Ok(None) => (Cow::Owned(derived_id(message_id, index)?), None),
        Err(violation) => (Cow::Owned(derived_id(message_id, index)?), Some(violation)),
    };
    Ok(GroupRequest {
        id,
        fields: with_violation(fields.check(), violation),
        json,
        inherits,
    })
}

/// The id that an element gives; `None` if it gives none.
fn request_id(member: Member<'_>) -> Result<Option<Cow<'_, str>>, Violation> {
    let description = match member.value {
        _ if member.is_repeated() => REPEATED,
        _ if member.is_absent() => return Ok(None),
        Given::Text(id) if id.len() > REQUEST_ID_MAX_BYTES => "must be at most 255 bytes long",
        Given::Text(id) if has_nul(&id) => NUL,
        Given::Text(id) => return Ok(Some(id)),
        Given::NoText => NO_TEXT,
        Given::Absent | Given::Number(_) | Given::Other(_) => "must be a string",
    };
    Err(Violation {
        field: "request_id",
        description: description.into(),
    })
}

/// Whether a request has the id that follows from a group's message id.
#[must_use]
pub fn is_derived(id: &str, message_id: &str) -> bool {
    let index = id
        .strip_prefix(message_id)
        .and_then(|rest| rest.strip_prefix('/'));
    index.is_some_and(|index| {
        (1..=5).contains(&index.len()) && index.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn derived_id(message_id: &str, index: usize) -> Result<String, String> {
    let id = format!("{message_id}/{index}");
    if id.len() > REQUEST_ID_MAX_BYTES {
        let text = "message_id is too long: message_id/index may have at most 255 bytes";
        return Err(text.into());
    }
    Ok(id)
}

fn with_violation(
    fields: Result<Fields, InvalidFields>,
    violation: Option<Violation>,
) -> Result<Fields, InvalidFields> {
    let Some(violation) = violation else {
        return fields;
    };
    let mut invalid = match fields {
        Err(invalid) => invalid,
        Ok(fields) => InvalidFields {
            violations: Vec::new(),
            fragments: Fragments::from(&fields),
        },
    };
    invalid.violations.push(violation);
    Err(invalid)
}
