//! Turns an event into the HTTP answer of its request. Pure.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::Problem;
use super::response::{respond, status_of};
use crate::domain::event::EventType;
use crate::domain::rpc_code::RpcCode;

/// The parts of an event that the answer needs.
#[derive(Deserialize)]
pub struct ParsedEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: ParsedData<'a>,
}

#[derive(Deserialize)]
struct ParsedData<'a> {
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The error of an event.
#[derive(Deserialize)]
pub struct ParsedStatus<'a> {
    pub code: i32,
    #[serde(borrow)]
    pub message: Option<&'a RawValue>,
    #[serde(borrow)]
    pub details: Option<&'a RawValue>,
}

impl<'a> ParsedEvent<'a> {
    pub fn read(event: &'a [u8]) -> Result<Self, Problem> {
        let event: Self = serde_json::from_slice(event).map_err(|_| Problem::unreadable_event())?;
        if event.data.error.is_none() && event.kind != EventType::Reverted.name() {
            return Err(Problem::unreadable_event());
        }
        Ok(event)
    }

    pub fn request_id(&self) -> Option<&str> {
        self.data.request_id.as_deref()
    }

    /// The error; `None` for a success.
    pub fn error(&self) -> Result<Option<ParsedStatus<'a>>, Problem> {
        let error = self
            .data
            .error
            .map(|error| serde_json::from_str(error.get()));
        error.transpose().map_err(|_| Problem::unreadable_event())
    }
}

/// `{}` for a success; otherwise the event's error unchanged, under the HTTP status of its code.
pub fn of_event(event: &[u8]) -> Result<Response<Body>, Problem> {
    let event = ParsedEvent::read(event)?;
    match (event.data.error, event.error()?) {
        (Some(json), Some(error)) => {
            // A refusal of a later version may have any code.
            let status =
                RpcCode::of_number(error.code).map_or(StatusCode::INTERNAL_SERVER_ERROR, status_of);
            Ok(respond(status, json.get().to_owned()))
        }
        (_, None) | (None, _) => Ok(respond(StatusCode::OK, "{}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_the_status_of_the_contract() {
        for (code, status) in [
            (3, 400),
            (5, 404),
            (6, 409),
            (7, 403),
            (9, 400),
            (4, 504),
            (8, 429),
            (10, 409),
            (11, 400),
            (12, 501),
            (13, 500),
            (14, 503),
            (16, 401),
            (2, 500),
            (99, 500),
        ] {
            let event = format!(
                r#"{{"type":"usage.revert.rejected",
                    "data":{{"error":{{"code":{code},"message":"m"}}}}}}"#
            );
            let answer = of_event(event.as_bytes()).expect("readable");
            assert_eq!(answer.status(), status, "{code}");
        }
    }

    #[test]
    fn a_reply_that_is_no_event_is_no_success() {
        for event in [
            "",
            "{}",
            r#"{"type":"x","data":{}}"#,
            r#"{"type":"usage.reverted"}"#,
        ] {
            let problem = of_event(event.as_bytes()).expect_err("unreadable");
            assert_eq!(problem.into_response().status(), 500, "{event}");
        }
        let event = br#"{"type":"usage.reverted","data":{"amount":"1"}}"#;
        assert_eq!(of_event(event).expect("readable").status(), 200);
    }
}
