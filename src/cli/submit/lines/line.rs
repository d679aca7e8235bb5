//! One line of a file, parsed as a request.

use std::io;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::request::{Envelope, Fields, RevertRequest, Undecodable, decode, text_member};

/// A request of a file.
#[derive(Clone, Debug)]
pub struct RequestLine {
    /// Number from 1; a header counts.
    pub number: u64,
    /// The request's id: the line's own, or one made of the batch and the content.
    pub message_id: String,
    /// Whether the line has an id of its own.
    pub has_own_id: bool,
    pub fields: Fields,
}

/// An invalid line, and the error.
pub struct LineError {
    pub number: u64,
    pub why: String,
}

pub type RequestLines = Box<dyn Iterator<Item = io::Result<Result<RequestLine, LineError>>>>;

pub fn read(
    number: u64,
    text: Result<Vec<u8>, String>,
    batch: &str,
) -> Result<RequestLine, LineError> {
    let failed = |why| Err(LineError { number, why });
    let text = match text {
        Ok(text) => text,
        Err(why) => return failed(why),
    };
    let fields = match decode(&text) {
        Ok(fields) => fields,
        Err(Undecodable::Malformed(why)) => return failed(why),
        Err(Undecodable::Invalid { violations, .. }) => {
            let all = violations
                .iter()
                .map(|violation| format!("{} {}", violation.field, violation.description));
            return failed(all.collect::<Vec<_>>().join("; "));
        }
    };
    let Ok(message_id) = text_member(&text, ["message_id", "messageId"]) else {
        return failed("message_id must be a string, given once and in one spelling".into());
    };
    let message_id = message_id.filter(|id| !id.is_empty());
    if message_id
        .as_ref()
        .is_some_and(|id| id.len() > 255 || id.contains('\0'))
    {
        return failed("message_id must have at most 255 bytes, and no zero byte".into());
    }
    Ok(RequestLine {
        number,
        has_own_id: message_id.is_some(),
        message_id: message_id.unwrap_or_else(|| format!("{batch}-{}", content(&fields))),
        fields,
    })
}

fn content(fields: &Fields) -> Uuid {
    RevertRequest::new(&Envelope::default(), fields.clone(), true).content
}

impl RequestLine {
    /// The digest of the content, which is the same in every spelling.
    pub fn content(&self) -> Uuid {
        content(&self.fields)
    }

    /// The request's body.
    pub fn body(&self) -> Value {
        json!(self.fields)
    }
}
