//! Export of spans to a collector: OTLP over HTTP, in batches, from a bounded queue.
//!
//! Nothing waits for the export: a span that the queue can't hold is dropped, and a thread of
//! OpenTelemetry's client sends the queue. The standard variables `OTEL_EXPORTER_OTLP_HEADERS` and
//! `_TIMEOUT`, `OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and
//! `OTEL_RESOURCE_ATTRIBUTES` have their usual meaning.

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

/// Largest answer that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Longest wait for the last spans when the process stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter of the process's spans. Call `stop` at the end, so that it sends the last spans.
#[derive(Debug)]
pub struct Exporting {
    pub(super) provider: SdkTracerProvider,
}

impl Exporting {
    /// Starts the export to the collector at `endpoint`, such as `http://localhost:4318`. `failed`
    /// counts batches that the collector did not accept. The caller must be within a tokio runtime.
    ///
    /// # Errors
    /// If one of the standard variables is wrong.
    pub fn start(endpoint: &str, failed: Counter) -> Result<Self, TelemetryError> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new())
            .with_endpoint(url)
            .build()
            .map_err(|error| {
                TelemetryError(format!(
                    "telemetry.otlp_endpoint: {error}; correct it, or the variable OTEL_EXPORTER_OTLP_... that it names"
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

    /// Sends the remaining spans; waits at most `GOODBYE_TIMEOUT`.
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

/// An exporter that logs when exports begin to fail, and when they succeed again.
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
                warn!(%error, endpoint, "spans are dropped: the collector does not take them; check telemetry.otlp_endpoint");
            }
        } else if before {
            info!("the collector takes spans again");
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

/// The HTTP client. Its caller is a thread outside the tokio runtime, so the request is spawned on
/// the runtime.
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
        // `timeout` must be created within the runtime, which drives its timer.
        let in_time = async move { timeout(ANSWER_TIMEOUT, answered).await? };
        self.runtime.spawn(in_time).await?
    }
}
