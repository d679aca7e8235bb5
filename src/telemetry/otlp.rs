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

use super::error::TelemetryError;
use crate::common::http_client::{self, HttpLimits, HttpServer};

/// The limits of one request to the collector.
const LIMITS: HttpLimits = HttpLimits {
    time: Duration::from_secs(10),
    body_bytes: 64 * 1024,
};

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
            .with_http_client(Post {
                runtime: Handle::current(),
            })
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

/// The exporter's way to the collector. It is called on a thread outside the runtime, so the work
/// is done in the runtime.
#[derive(Clone, Debug)]
struct Post {
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Within the runtime: a timer belongs to the one that makes it.
        Ok(self.runtime.spawn(post(request)).await??)
    }
}

async fn post(mut request: Request<Bytes>) -> Result<Response<Bytes>, http_client::HttpError> {
    let invalid = |error: &dyn fmt::Display| http_client::HttpError::Request(error.to_string());
    let uri = request.uri().clone();
    let host = uri.host().unwrap_or_default();
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|error| invalid(&error))?;
    let server = HttpServer {
        host: host.trim_matches(['[', ']']),
        port: uri.port_u16().unwrap_or(80),
        authority,
        tls: None,
    };
    http_client::send(server, request, LIMITS).await
}
