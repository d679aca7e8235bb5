//! Spans on their way to a collector: OTLP over HTTP, in batches, from a queue that drops what it
//! can't hold.
//!
//! Nothing waits for it: what is recorded goes into the queue or is dropped, and a thread of the
//! client's own sends it. The standard variables `OTEL_EXPORTER_OTLP_HEADERS` and `_TIMEOUT`,
//! `OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` count as
//! they do everywhere.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use super::TelemetryError;

/// Longest wait for the collector's answer to one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Longest wait for the last spans, at the end.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What exports a process's spans; it must be told of the end, so that the last ones are sent.
#[derive(Debug)]
pub struct Exporting {
    pub(super) provider: SdkTracerProvider,
}

impl Exporting {
    /// Starts to export to the collector at `endpoint`, such as `http://localhost:4318`. `failed`
    /// counts batches that it did not take. To be called within a runtime.
    ///
    /// # Errors
    /// Where one of the standard variables is wrong.
    pub fn start(endpoint: &str, failed: Counter) -> Result<Self, TelemetryError> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new())
            .with_endpoint(url)
            .build()
            .map_err(|error| {
                TelemetryError(format!(
                    "telemetry.otlp_endpoint: {error}; correct it, or the variable \
                     OTEL_EXPORTER_OTLP_... that the error names"
                ))
            })?;
        let exporter = LoggingExporter {
            exporter,
            endpoint: endpoint.into(),
            failed,
            failing: AtomicBool::new(false),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Self { provider })
    }

    /// Sends what is left, for a moment.
    pub async fn stop(self) {
        let stopping = move || drop(self.provider.shutdown_with_timeout(GOODBYE_TIMEOUT));
        let _ = timeout(GOODBYE_TIMEOUT, tokio::task::spawn_blocking(stopping)).await;
    }
}

fn resource() -> Resource {
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
    ]);
    match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => builder.build(),
        None => builder.with_service_name("revertd").build(),
    }
}

/// An exporter that says when it begins to fail, and when it no longer does.
struct LoggingExporter {
    exporter: SpanExporter,
    endpoint: String,
    failed: Counter,
    failing: AtomicBool,
}

impl fmt::Debug for LoggingExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggingExporter").finish_non_exhaustive()
    }
}

impl opentelemetry_sdk::trace::SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed = exported.is_err();
        let before = self.failing.swap(failed, Ordering::Relaxed);
        if let Err(error) = &exported {
            self.failed.inc();
            if !before {
                let endpoint = &self.endpoint;
                warn!(
                    event = "spans_dropped",
                    %error,
                    endpoint,
                    "spans are dropped, because the collector does not accept them; check \
                     telemetry.otlp_endpoint and the collector's own log"
                );
            }
        } else if before {
            info!(
                event = "spans_accepted",
                "the collector accepts spans again"
            );
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The HTTP client. Who calls it is a thread outside the runtime, so the work is done in the
/// runtime.
#[derive(Clone, Debug)]
struct Post {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

impl Post {
    fn new() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: Handle::current(),
        }
    }
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answered = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // Within the runtime: a timer belongs to the one that makes it.
        let in_time = async move { timeout(ANSWER_TIMEOUT, answered).await? };
        self.runtime.spawn(in_time).await?
    }
}
