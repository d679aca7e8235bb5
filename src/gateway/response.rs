//! HTTP answers with the headers that belong to their status. Pure.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};

use crate::domain::rpc_code::RpcCode;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"revertd\", charset=\"UTF-8\"");
const POST: HeaderValue = HeaderValue::from_static("POST");
const ONE_SECOND: HeaderValue = HeaderValue::from_static("1");

/// The HTTP status of a code.
pub fn status_of(code: RpcCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).expect("the statuses of codes have three digits")
}

/// An answer with the headers that go with its status.
pub fn respond(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    match status {
        StatusCode::UNAUTHORIZED => headers.insert(WWW_AUTHENTICATE, CHALLENGE),
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, POST),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, ONE_SECOND)
        }
        _ => None,
    };
    response
}
