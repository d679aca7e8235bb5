//! The HTTP server on `telemetry.listen`: `/metrics`, `/healthz`, `/readyz`.
//!
//! This module must not know the content that it serves: it gets a registry and a readiness check.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use super::error::TelemetryError;
use crate::common::http_server;
use crate::common::http_server::{Limits, ProtocolFault, Server};

/// The text format that every version of Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Most connections at a time: a collector and probes keep one or two each.
const CONNECTIONS: usize = 64;

/// How long answers may continue after the server is dropped.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a process is not ready: one sentence, without secrets.
pub type NotReady = String;

/// A server that answers until this value is dropped.
#[derive(Debug)]
pub struct Listening {
    /// The address of the listener. If port 0 was configured, the system chose the port.
    pub address: SocketAddr,
    _until_dropped: DropGuard,
}

struct Shown {
    registry: Registry,
    readiness: Box<dyn Fn() -> Result<(), NotReady> + Send + Sync>,
}

/// Starts to serve the metrics of `registry` and the result of `readiness`.
///
/// # Errors
/// If it cannot listen on the address.
pub fn listen(
    address: SocketAddr,
    registry: Registry,
    readiness: impl Fn() -> Result<(), NotReady> + Send + Sync + 'static,
) -> Result<Listening, TelemetryError> {
    let failed = |error: std::io::Error| {
        TelemetryError(format!(
            "telemetry.listen: cannot listen on {address}: {error}; set it to an address of this \
            machine and a free port, or remove it"
        ))
    };
    let socket = http_server::bind(address).map_err(failed)?;
    let listener = http_server::listen(socket).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shown = Arc::new(Shown {
        registry,
        readiness: Box::new(readiness),
    });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn(sound_head))
        .with_state(shown);
    info!(%address, "serving /metrics, /healthz and /readyz");
    let stop = CancellationToken::new();
    let server = Server::new(router, None, Limits::of(CONNECTIONS), stop.clone());
    tokio::spawn(Arc::new(server).serve(listener, STOP_TIMEOUT));
    Ok(Listening {
        address,
        _until_dropped: stop.drop_guard(),
    })
}

async fn sound_head(request: Request, next: Next) -> Response {
    match ProtocolFault::of(request.version(), request.headers()) {
        None => next.run(request).await,
        Some(ProtocolFault::Host) => StatusCode::BAD_REQUEST.into_response(),
        Some(ProtocolFault::Expect) => StatusCode::EXPECTATION_FAILED.into_response(),
    }
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let mut page = String::new();
    match prometheus_text::encode(&mut page, &shown.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// An answer proves liveness: the same runtime runs the worker.
async fn healthz() -> Response {
    json(StatusCode::OK, r#"{"alive":true}"#.into())
}

async fn readyz(State(shown): State<Arc<Shown>>) -> Response {
    match (shown.readiness)() {
        Ok(()) => json(StatusCode::OK, r#"{"ready":true}"#.into()),
        Err(why) => {
            let body = serde_json::json!({"ready": false, "why": why}).to_string();
            json(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn json(status: StatusCode, body: String) -> Response {
    let body = body + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
