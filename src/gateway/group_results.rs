//! The results of a group: one for each request, in the order of the requests. Pure.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{self, ParsedEvent, ParsedStatus};
use super::problem::Problem;
use super::response::respond;
use crate::domain::event_batch;
use crate::domain::request::Group;
use crate::domain::rpc_code::RpcCode;

/// The results that are there.
pub struct GroupResults {
    message_id: String,
    /// The index of each request, by its id.
    indexes: HashMap<String, usize>,
    /// Each as JSON.
    results: Vec<Option<String>>,
    /// The number of requests without a result.
    missing: usize,
}

/// The result of a request; without an error, the request succeeded.
#[derive(Serialize)]
struct RequestOutcome<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a RawValue>,
}

impl GroupResults {
    /// No result yet.
    pub fn new(message_id: &str, group: &Group<'_>) -> Self {
        let ids = group.requests.iter().enumerate();
        let requests = group.requests.len();
        Self {
            message_id: message_id.to_owned(),
            indexes: ids
                .map(|(index, request)| (request.id.clone().into_owned(), index))
                .collect(),
            results: vec![None; requests],
            missing: requests,
        }
    }

    /// The number of requests.
    pub fn requests(&self) -> usize {
        self.results.len()
    }

    /// Takes a reply. The answer, once each request has a result.
    pub fn add(&mut self, reply: &[u8]) -> Result<Option<Response<Body>>, Problem> {
        let events = event_batch::events(reply).map_err(|_| Problem::unreadable_event())?;
        for event in events {
            let event = event.get().as_bytes();
            let parsed = ParsedEvent::read(event)?;
            let (id, error) = (parsed.request_id().unwrap_or_default(), parsed.error()?);
            if let Some(index) = self.indexes.get(id) {
                self.set(*index, &outcome(id, error.as_ref()));
            } else if id == self.message_id {
                let malformed = Some(RpcCode::InvalidArgument.number());
                if error.as_ref().map(|error| error.code) == malformed {
                    // The worker did not accept the group: its limits are other than the gateway's.
                    return answer::of_event(event).map(Some);
                }
                self.set_all(error.as_ref());
            }
        }
        Ok((self.missing == 0).then(|| self.response()))
    }

    /// The answer at the deadline: a request without an event has the error of that. `None` without
    /// any result, since nothing shows that the group was accepted.
    pub fn so_far(&mut self) -> Result<Option<Response<Body>>, Problem> {
        if self.missing == self.results.len() {
            return Ok(None);
        }
        let late = Problem::no_answer().to_json();
        let late = serde_json::from_str(&late).map_err(|_| Problem::unreadable_event())?;
        self.set_all(Some(&late));
        Ok(Some(self.response()))
    }

    /// Gives this result to each request that has none.
    fn set_all(&mut self, error: Option<&ParsedStatus<'_>>) {
        let outcomes: Vec<_> = self
            .indexes
            .iter()
            .map(|(id, index)| (*index, outcome(id, error)))
            .collect();
        for (index, outcome) in outcomes {
            self.set(index, &outcome);
        }
    }

    /// Events are delivered at least once; the first counts.
    fn set(&mut self, index: usize, outcome: &str) {
        if self.results[index].is_none() {
            self.results[index] = Some(outcome.to_owned());
            self.missing -= 1;
        }
    }

    fn response(&self) -> Response<Body> {
        let results: Vec<_> = self.results.iter().flatten().map(String::as_str).collect();
        respond(
            StatusCode::OK,
            format!("{{\"results\":[{}]}}", results.join(",")),
        )
    }
}

fn outcome(request_id: &str, error: Option<&ParsedStatus<'_>>) -> String {
    let outcome = RequestOutcome {
        request_id,
        code: error.map(|error| error.code),
        message: error.and_then(|error| error.message),
        details: error.and_then(|error| error.details),
    };
    serde_json::to_string(&outcome).expect("text, numbers and JSON are JSON")
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::request::{self, RequestLimits};

    const LIMITS: RequestLimits = RequestLimits {
        message_bytes: 1024,
        group_bytes: 1024,
        group_requests: 10,
    };

    /// The results of a group of the requests `a`, `m/1` and `c`.
    fn results() -> GroupResults {
        let body = br#"{"requests":[{"request_id":"a"},{},{"request_id":"c"}]}"#;
        match request::parse(body, Some("m"), &LIMITS) {
            Ok(request::Body::Group(group)) => GroupResults::new("m", &group),
            other => panic!("no group: {other:?}"),
        }
    }

    fn success(id: &str) -> Value {
        json!({"type": "usage.reverted", "data": {"request_id": id}})
    }

    fn failure(id: &str, code: i32) -> Value {
        let error = json!({"code": code, "message": "m\u{e9}", "details": [{"reason": "R"}]});
        json!({"type": "usage.revert.failed", "data": {"request_id": id, "error": error}})
    }

    fn add(results: &mut GroupResults, reply: &Value) -> Option<Response<Body>> {
        results.add(reply.to_string().as_bytes()).expect("readable")
    }

    async fn body(response: Option<Response<Body>>) -> Value {
        let body = response.expect("an answer").into_body();
        let body = to_bytes(body, usize::MAX).await.expect("whole");
        serde_json::from_slice(&body).expect("JSON")
    }

    #[tokio::test]
    async fn results_are_in_the_order_of_the_requests() {
        let mut results = results();
        let error = failure("c", 5);
        let batch = json!([error, success("a"), success("a"), success("other")]);
        assert!(add(&mut results, &batch).is_none());
        assert!(add(&mut results, &error).is_none());
        // The first event of a request counts.
        assert!(add(&mut results, &success("c")).is_none());
        let answer = add(&mut results, &success("m/1"));
        let mut last = error["data"]["error"].clone();
        last["request_id"] = json!("c");
        let expected = json!({"results": [{"request_id": "a"}, {"request_id": "m/1"}, last]});
        assert_eq!(body(answer).await, expected);
    }

    #[tokio::test]
    async fn an_event_of_the_group_answers_each_request() {
        let mut group = results();
        assert!(add(&mut group, &success("c")).is_none());
        let answer = body(add(&mut group, &failure("m", 13))).await;
        let codes: Vec<_> = (0..3)
            .map(|index| &answer["results"][index]["code"])
            .collect();
        assert_eq!(codes, [&json!(13), &json!(13), &Value::Null]);
        let malformed = add(&mut results(), &failure("m", 3)).expect("an answer");
        assert_eq!(malformed.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_reply_that_is_no_event_is_no_result() {
        for reply in [
            "",
            "[",
            "[5]",
            "{}",
            r#"[{"type":"x","data":{"request_id":"a"}}]"#,
        ] {
            let problem = results().add(reply.as_bytes()).expect_err("unreadable");
            assert_eq!(problem.into_response().status(), 500, "{reply}");
        }
    }
}
