//! The API's operations over HTTP: publishes a request, or a group, as its client, and answers with
//! its events.
//!
//! ```text
//! headers -> login -> body -> parse -> place -> publish as the client -> events on the reply queue
//! -> status
//! ```
//!
//! This module must not know the database, nor AMQP: the broker decides who may publish, the worker
//! decides the outcome.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Method, Response};
use axum::middleware::{self, Next};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{error, info, warn};

use crate::broker::{BrokerError, ReplyRouter};
use crate::common::backoff::Backoff;
use crate::common::http_server;
use crate::common::http_server::{Limits, ProtocolFault, Server, Shares};
use crate::config::{Policy, Settings};
use crate::telemetry::{self, Http, NotReady, TelemetryError};
use headers::{Ids, REQUEST_ID, TRACEPARENT};
use metrics::GatewayMetrics;
use operation::Operation;
use problem::Problem;
use sessions::Sessions;
use shared::Gateway;

mod answer;
mod credentials;
mod group_results;
mod guesses;
mod headers;
mod metrics;
mod operation;
mod problem;
mod response;
mod sessions;
mod shared;
mod tls;

/// Paths of the operations, as `openapi.yaml` defines them.
const PATH: &str = "/v1beta1/organizations/billing/usages/revert";
const BATCH_PATH: &str = "/v1beta1/organizations/billing/usages/revert:batch";

/// Backoff while the broker is not reachable at the start.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often expired logins are removed from memory.
const TIDY_EVERY: Duration = Duration::from_secs(5);

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why the gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The gateway cannot listen on the address.
    #[error(
        "cannot listen on {address}: {error}; set gateway.listen to an address of this \
    machine and a free port"
    )]
    Listen {
        /// `gateway.listen`.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The certificate or the key can't be used.
    #[error("{0}")]
    Tls(String),
    /// The server on `telemetry.listen` cannot start.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The broker refuses the gateway permanently.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers; check that /dev/urandom exists")]
    Random,
}

/// Serves until `stop` is cancelled. Returns whether all requests in flight then were answered.
///
/// # Errors
/// If the gateway can't start.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<bool, GatewayError> {
    let settings = Arc::new(settings);
    let failed = |error| GatewayError::Listen {
        address: settings.gateway.listen.0,
        error,
    };
    let socket = http_server::bind(settings.gateway.listen.0).map_err(failed)?;
    let tls = tls::acceptor(&settings.gateway).map_err(GatewayError::Tls)?;
    let readiness = Readiness::default();
    let mut registry = telemetry::registry("gateway");
    let http = Http::new(&mut registry);
    let metrics = Arc::new(GatewayMetrics::new(&mut registry));
    let sessions = Sessions::new(settings.clone(), metrics.clone()).ok_or(GatewayError::Random)?;
    // It serves before the broker is reachable, and until no request is in flight.
    let _showing = match settings.telemetry.listen {
        Some(address) => Some(telemetry::listen(
            address.0,
            registry,
            readiness.asked(&stop),
        )?),
        None => None,
    };
    let Some(replies) = stop.run_until_cancelled(replies(&settings)).await else {
        return Ok(true);
    };
    let in_flight = usize::from(settings.gateway.max_in_flight);
    let gateway = Arc::new(Gateway {
        sessions,
        replies: replies?,
        places: Semaphore::new(in_flight),
        shares: Shares::new(http_server::tenth(in_flight)),
        metrics,
        http,
        settings: settings.clone(),
    });
    let listener = http_server::listen(socket).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if tls.is_none() && !address.ip().is_loopback() {
        warn!(
            event = "clear_text",
            %address,
            "clients send their secrets to this address in clear text; set gateway.cert_file and \
             gateway.key_file, or listen on 127.0.0.1 behind a proxy that speaks TLS"
        );
    }
    readiness.serving(&gateway);
    info!(event = "ready", %address, tls = tls.is_some(), "listening");
    let limits = Limits::of(2 * in_flight);
    let server = Server::new(router(gateway.clone()), tls, limits, stop.clone());
    let tidying = tokio::spawn(tidy(gateway.clone()));
    let serving = Arc::new(server).serve(listener, settings.worker.shutdown_timeout);
    let finished = serving.await;
    tidying.abort();
    gateway.close().await;
    info!(event = "stopped", metrics = %gateway.metrics, "stopped");
    if !finished {
        warn!(
            event = "requests_unanswered",
            "the gateway stopped before it answered all requests; workers still decide these \
             requests, and their clients may send them again with the same Idempotency-Key"
        );
    }
    Ok(finished)
}

/// Opens the reply queue; waits for a broker that is not reachable yet.
async fn replies(settings: &Arc<Settings>) -> Result<ReplyRouter, BrokerError> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut failed = false;
    loop {
        match ReplyRouter::open(settings.clone(), failed).await {
            Ok(replies) => return Ok(replies),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => {
                if !failed {
                    warn!(event = "broker_unavailable", %error, "the broker is not available; \
                    the gateway keeps trying to connect");
                }
                failed = true;
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

fn router(gateway: Arc<Gateway>) -> Router {
    let posted = |operation| {
        post(operation::revert)
            .layer(Extension(operation))
            .fallback(operation::wrong_method)
    };
    Router::new()
        .route(PATH, posted(Operation::Request))
        .route(BATCH_PATH, posted(Operation::Group))
        .fallback(operation::wrong_path)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(gateway.clone(), with_ids))
        .with_state(gateway)
}

/// Gives each request its ids, puts them into the headers of its answer, and measures its duration.
async fn with_ids(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let active = gateway.http.begin();
    let is_post = request.method() == Method::POST;
    let key_required = gateway.settings.revert.policy == Policy::Cumulative;
    let ids = Ids::of(request.headers(), key_required);
    let (shown, traceparent) = (ids.shown.clone(), ids.traceparent.clone());
    request.extensions_mut().insert(ids);
    let fault = ProtocolFault::of(request.version(), request.headers());
    let mut response = match fault.map(Problem::of_protocol) {
        None => next.run(request).await,
        Some(problem) => operation::refuse_unread(problem, request).await,
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, shown);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(traceparent) = traceparent {
        headers.insert(TRACEPARENT, traceparent);
    }
    active.answered(is_post, response.status().as_u16());
    response
}

/// A panic ends one request, and no other.
#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    error!(
        event = "request_panicked",
        "the handler of a request panicked; this is a bug in revertd, please report it with the \
         log lines before this one"
    );
    Problem::internal(
        "a bug in the gateway ended this request; send it again with the same \
    Idempotency-Key",
    )
    .into_response()
}

async fn tidy(gateway: Arc<Gateway>) {
    let mut ticks = interval(TIDY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gateway.sessions.tidy().await;
    }
}

/// Whether the gateway can answer, for `/readyz`.
#[derive(Clone, Default)]
struct Readiness(Arc<OnceLock<Weak<Gateway>>>);

impl Readiness {
    fn serving(&self, gateway: &Arc<Gateway>) {
        // `run` calls this once, so `set` can't fail.
        let _ = self.0.set(Arc::downgrade(gateway));
    }

    fn asked(&self, stop: &CancellationToken) -> impl Fn() -> Result<(), NotReady> + use<> {
        let (readiness, stop) = (self.clone(), stop.clone());
        move || {
            if stop.is_cancelled() {
                return Err("stopping: requests in flight are answered".into());
            }
            let gateway = readiness.0.get().and_then(Weak::upgrade);
            let gateway = gateway.ok_or("starting: the broker has not answered yet")?;
            gateway
                .replies
                .ready()
                .map_err(|error| format!("the broker: {error}"))
        }
    }
}
