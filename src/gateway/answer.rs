//! Turns an event into the HTTP answer. Pure.

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
struct ParsedEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: ParsedData<'a>,
}

#[derive(Deserialize)]
struct ParsedData<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ParsedStatus {
    code: i32,
}

/// `{}` for a success; otherwise the event's error unchanged, under the HTTP status of its code.
pub fn of_event(event: &[u8]) -> Result<Response<Body>, Problem> {
    let unreadable = || {
        Problem::internal(
            "the gateway can't parse the event of this request; the event was \
        also published to the reply exchange",
        )
    };
    let event: ParsedEvent<'_> = serde_json::from_slice(event).map_err(|_| unreadable())?;
    match event.data.error {
        None if event.kind == EventType::Reverted.name() => Ok(respond(StatusCode::OK, "{}")),
        None => Err(unreadable()),
        Some(error) => {
            let error = error.get();
            let ParsedStatus { code } = serde_json::from_str(error).map_err(|_| unreadable())?;
            // A refusal of a later version may have any code.
            let status =
                RpcCode::of_number(code).map_or(StatusCode::INTERNAL_SERVER_ERROR, status_of);
            Ok(respond(status, error.to_owned()))
        }
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
                r#"{{"type":"usage.revert.rejected","data":{{"error":{{"code":{code},"message":"m"}}}}}}"#
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
