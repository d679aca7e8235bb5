//! The error of a request as `google.rpc.Status` in JSON: in events, and in HTTP responses.

use serde::Serialize;

use super::SOURCE;
use crate::domain::outcome::{Code, Metadata};
use crate::domain::request::Violation;

/// `google.rpc.Status`.
#[derive(Serialize)]
pub struct RpcStatus<'a> {
    code: i32,
    message: &'a str,
    details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "@type")]
enum Detail<'a> {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        reason: &'a str,
        domain: &'static str,
        metadata: Metadata,
    },
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest")]
    BadRequest {
        #[serde(rename = "fieldViolations")]
        field_violations: Vec<FieldViolation<'a>>,
    },
}

#[derive(Serialize)]
struct FieldViolation<'a> {
    field: &'static str,
    description: &'a str,
}

impl<'a> RpcStatus<'a> {
    /// A status whose details are an `ErrorInfo` and, if there are `violations`, a `BadRequest`.
    #[must_use]
    pub fn new(
        code: Code<'a>,
        message: &'a str,
        metadata: Metadata,
        violations: &'a [Violation],
    ) -> Self {
        let mut details = vec![Detail::ErrorInfo {
            reason: code.reason,
            domain: SOURCE,
            metadata,
        }];
        if !violations.is_empty() {
            details.push(Detail::BadRequest {
                field_violations: violations
                    .iter()
                    .map(|violation| FieldViolation {
                        field: violation.field,
                        description: &violation.description,
                    })
                    .collect(),
            });
        }
        Self {
            code: code.number,
            message,
            details,
        }
    }
}
