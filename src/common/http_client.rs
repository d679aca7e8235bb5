//! A small HTTP client: one request on a connection of its own, bounded in time and size.
//!
//! It must not know what is asked, nor what an answer means.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::common::tls;
use crate::config::TlsFiles;

pub use hyper::header::AUTHORIZATION;
pub use hyper::{Request, Response, StatusCode};

/// The server that is asked.
pub struct HttpServer<'a> {
    /// Its name or address, without brackets.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Host and port as the header `Host` has them.
    pub authority: &'a str,
    /// How it is verified; `None` speaks plain text.
    pub tls: Option<&'a TlsFiles>,
}

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Longest wait for the whole answer, the connection included.
    pub time: Duration,
    /// The largest body that is read, in bytes.
    pub body_bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection to the server.
    #[error("{0}")]
    Connect(io::Error),
    /// The server could not be verified, or does not speak TLS; [`tls::fault`] tells which.
    #[error("{0}")]
    Tls(io::Error),
    /// The connection ended without an answer to the request.
    #[error("{0}")]
    NoAnswer(hyper::Error),
    /// The answer could not be read, or is larger than the limit.
    #[error("{0}")]
    Body(String),
    /// The request cannot be written as HTTP.
    #[error("{0}")]
    Request(String),
    /// The server did not answer in time.
    #[error("no answer in time")]
    Silent,
}

/// Sends `request`, whose address is a path, and reads the whole answer.
///
/// # Errors
/// If there is no answer within the limits. An answer of any status is no error.
pub async fn send(
    server: HttpServer<'_>,
    request: Request<Bytes>,
    limits: HttpLimits,
) -> Result<Response<Bytes>, HttpError> {
    let answered = timeout(limits.time, exchange(server, request, limits.body_bytes)).await;
    answered.unwrap_or(Err(HttpError::Silent))
}

async fn exchange(
    server: HttpServer<'_>,
    mut request: Request<Bytes>,
    body_bytes: usize,
) -> Result<Response<Bytes>, HttpError> {
    let invalid = |error: &dyn Display| HttpError::Request(error.to_string());
    let authority = HeaderValue::from_str(server.authority).map_err(|error| invalid(&error))?;
    request.headers_mut().insert(HOST, authority);
    let stream = TcpStream::connect((server.host, server.port)).await;
    let stream = stream.map_err(HttpError::Connect)?;
    let stream = match server.tls {
        None => Either::Left(stream),
        Some(files) => {
            let encrypted = tls::connect(files, server.host, stream).await;
            Either::Right(encrypted.map_err(HttpError::Tls)?)
        }
    };
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(HttpError::NoAnswer)?;
    // It ends with the sender; its errors reach the request below.
    tokio::spawn(connection);
    let answer = sender.send_request(request.map(Full::new)).await;
    let (parts, body) = answer.map_err(HttpError::NoAnswer)?.into_parts();
    let body = Limited::new(body, body_bytes).collect().await;
    let body = body.map_err(|error| HttpError::Body(error.to_string()))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
