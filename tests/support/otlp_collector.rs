//! An OpenTelemetry collector that keeps the received spans: OTLP over HTTP.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::eventually;

/// A collector; gone when dropped.
pub struct Collector {
    pub endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    server: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let router = Router::new()
            .route("/v1/traces", post(keep))
            .with_state(spans.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            endpoint: format!("http://{address}"),
            spans,
            server,
        }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panics with it").clone()
    }

    /// Waits until there are spans that fit, and returns them.
    pub async fn wait_for(
        &self,
        what: &str,
        count: usize,
        fits: impl Fn(&Span) -> bool,
    ) -> Vec<Span> {
        let fitting =
            || -> Vec<Span> { self.spans().into_iter().filter(|span| fits(span)).collect() };
        eventually(what, async || fitting().len() >= count).await;
        fitting()
    }
}

async fn keep(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|of| of.scope_spans);
    let all = scopes.flat_map(|scope| scope.spans);
    spans.lock().expect("nobody panics with it").extend(all);
    StatusCode::OK
}
