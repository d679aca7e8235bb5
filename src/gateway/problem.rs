//! The answers that the gateway itself gives instead of `{}`: one function makes each of them.
//!
//! Pure. `answer.rs` makes the answers that the worker's events determine.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{Response, StatusCode};

use super::response::{respond, status_of};
use crate::common::http_server::ProtocolFault;
use crate::domain::event::RpcStatus;
use crate::domain::outcome::{Code, Failure, Metadata};
use crate::domain::refusal::{FailureReason, RefusalReason, Row};
use crate::domain::request::{Undecodable, Violation};
use crate::domain::rpc_code::RpcCode;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Code<'static>,
    message: Cow<'static, str>,
    metadata: Metadata,
    violations: Vec<Violation>,
    /// Whole seconds until a repetition can help, if that is known.
    retry_after: Option<u64>,
}

impl Problem {
    fn new(
        status: StatusCode,
        code: RpcCode,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let number = code.number();
        Self {
            status,
            code: Code { number, reason },
            message: message.into(),
            metadata: Metadata::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// With reason, code and status of a row of the table of refusals.
    fn of_row(row: &Row, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status_of(row.code), row.code, row.reason, message)
    }

    fn unavailable(reason: &'static str, message: &'static str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            RpcCode::Unavailable,
            reason,
            message,
        )
    }

    pub fn of_protocol(fault: ProtocolFault) -> Self {
        match fault {
            ProtocolFault::Host => Self::of_row(
                FailureReason::MalformedRequest.row(),
                "HTTP/1.1 requires exactly one Host header",
            ),
            ProtocolFault::Expect => Self::new(
                StatusCode::EXPECTATION_FAILED,
                RpcCode::InvalidArgument,
                "UNKNOWN_EXPECTATION",
                "the only supported value of the Expect header is 100-continue",
            ),
        }
    }

    pub fn wrong_path() -> Self {
        let message = "this path does not exist; send requests to POST \
            /v1beta1/organizations/billing/usages/revert, and groups to POST \
            /v1beta1/organizations/billing/usages/revert:batch";
        Self::new(
            StatusCode::NOT_FOUND,
            RpcCode::NotFound,
            "PATH_NOT_FOUND",
            message,
        )
    }

    pub fn wrong_method() -> Self {
        let (status, reason) = (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED");
        Self::new(
            status,
            RpcCode::Unimplemented,
            reason,
            "this path supports only the method POST",
        )
    }

    /// The same answer for every fault of id and secret, so that it does not reveal which ids
    /// exist.
    pub fn client_unknown() -> Self {
        let message = "the login failed; send the client's id and secret in the Authorization \
            header, scheme Basic";
        Self::of_row(RefusalReason::ClientUnknown.row(), message)
    }

    pub fn barred() -> Self {
        let message = "the client has no permission on the broker's virtual host; an operator \
            grants it with rabbitmqctl set_permissions, as the documentation lists under \
            Permissions";
        Self::new(
            StatusCode::FORBIDDEN,
            RpcCode::PermissionDenied,
            "VIRTUAL_HOST_NOT_PERMITTED",
            message,
        )
    }

    pub fn publish_not_permitted() -> Self {
        let message = "the client has no permission to write to the request exchange; an \
            operator grants it with rabbitmqctl set_permissions, as the documentation lists \
            under Permissions";
        Self::new(
            StatusCode::FORBIDDEN,
            RpcCode::PermissionDenied,
            "PUBLISH_NOT_PERMITTED",
            message,
        )
    }

    pub fn not_json() -> Self {
        let (status, reason) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE");
        let message = "the body must be JSON without a content coding, with the header \
            Content-Type: application/json";
        Self::new(status, RpcCode::InvalidArgument, reason, message)
    }

    /// The setting `key` allows `limit` bytes.
    pub fn too_large(limit: u64, key: &str) -> Self {
        let message = format!("the body has more than {limit} bytes, the limit that {key} sets");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            RpcCode::InvalidArgument,
            "BODY_TOO_LARGE",
            message,
        )
    }

    pub fn slow_body() -> Self {
        let message = "the body did not arrive in time; send the request again, without pauses in \
            the body";
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            RpcCode::DeadlineExceeded,
            "BODY_TIMEOUT",
            message,
        )
    }

    pub fn cut_off_body() -> Self {
        let row = FailureReason::MalformedRequest.row();
        Self::of_row(row, "the body could not be read to its end")
    }

    /// The error that the worker would report for this body.
    pub fn undecodable(error: Undecodable) -> Self {
        match error {
            Undecodable::Malformed(fault) => {
                let failure = Failure::Malformed(fault);
                Self::of_row(failure.row(), failure.message().to_owned())
            }
            Undecodable::Invalid { violations, .. } => Self::invalid(violations),
        }
    }

    /// A group at the path of single requests.
    pub fn is_group() -> Self {
        let row = FailureReason::MalformedRequest.row();
        let message = "the body has a member requests, so it is a group; groups go to POST \
            /v1beta1/organizations/billing/usages/revert:batch";
        Self::of_row(row, message)
    }

    /// A single request at the path of groups.
    pub fn is_no_group() -> Self {
        let row = FailureReason::MalformedRequest.row();
        Self::of_row(row, "the body is no group: it has no member requests")
    }

    pub fn invalid(violations: Vec<Violation>) -> Self {
        let row = RefusalReason::InvalidField.row();
        Self {
            violations,
            ..Self::of_row(row, row.message)
        }
    }

    /// Too many requests of one client; `share` is its share of `max_in_flight`. A large group
    /// counts as several.
    pub fn too_many_requests(share: usize) -> Self {
        let message = format!(
            "{share} requests of this client are in flight, which is the limit of one client, \
             and a large group counts as several; send the request again later"
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(
            status,
            RpcCode::ResourceExhausted,
            "TOO_MANY_REQUESTS",
            message,
        )
    }

    /// The same answer whether or not the broker knows the id.
    pub fn too_many_guesses(wait: Duration) -> Self {
        let message = "too many wrong secrets of this id came from this address; send the \
            request again after the seconds in the Retry-After header";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self {
            retry_after: Some(wait.as_secs() + 1),
            ..Self::new(
                status,
                RpcCode::ResourceExhausted,
                "TOO_MANY_GUESSES",
                message,
            )
        }
    }

    pub fn saturated() -> Self {
        Self::unavailable(
            "SATURATED",
            "the gateway has its maximum number of requests in flight; send the request again \
            later",
        )
    }

    pub fn too_many_logins() -> Self {
        Self::unavailable(
            "SATURATED",
            "too many clients are logging in at present; send the request again later",
        )
    }

    pub fn broker_unavailable() -> Self {
        Self::unavailable(
            "BROKER_UNAVAILABLE",
            "the broker is not available at present; send the request again later",
        )
    }

    pub fn unroutable() -> Self {
        let message = "the request was not accepted: no queue is bound to the request exchange; \
            an operator starts `revertd worker` once, which declares it";
        Self::unavailable("NO_WORK_QUEUE", message)
    }

    pub fn full() -> Self {
        let message = "the request was not accepted: the work queue, or another queue that is \
            bound to the request exchange, is full; send it again later, with its request_id as \
            Idempotency-Key";
        Self::unavailable("WORK_QUEUE_FULL", message)
    }

    pub fn lost() -> Self {
        let message = "the connection to the broker was lost, and the request may have been \
            accepted; send it again with its request_id as Idempotency-Key to get its answer";
        Self::unavailable("OUTCOME_UNKNOWN", message)
    }

    pub fn no_answer() -> Self {
        let message = "no event arrived in time, and the request is still processed; send it \
            again with its request_id as Idempotency-Key to get its answer";
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            RpcCode::DeadlineExceeded,
            "NO_ANSWER_IN_TIME",
            message,
        )
    }

    /// A reply that is no event of the request.
    pub fn unreadable_event() -> Self {
        Self::internal("the request's event can't be read; it is on the reply exchange")
    }

    pub fn internal(message: &'static str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            RpcCode::Internal,
            "INTERNAL",
            message,
        )
    }

    /// Adds the id under which the request was published.
    pub fn about(mut self, message_id: &str) -> Self {
        self.metadata
            .insert("request_id".into(), message_id.to_owned());
        self
    }

    /// Its `google.rpc.Status` as JSON.
    pub fn to_json(&self) -> String {
        let metadata = self.metadata.clone();
        let status = RpcStatus::new(self.code, &self.message, metadata, &self.violations);
        serde_json::to_string(&status).expect("text and maps keyed by text are JSON")
    }

    /// Makes the HTTP answer.
    pub fn into_response(self) -> Response<Body> {
        let mut response = respond(self.status, self.to_json());
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
