//! Metrics of an HTTP server: the duration of its answers by status, and the requests in progress.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Buckets from a millisecond to 30 seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

#[derive(Clone, Debug, EncodeLabelSet, Hash, PartialEq, Eq)]
struct AnswerLabels {
    http_request_method: &'static str,
    http_response_status_code: u16,
}

/// Metrics of a server, named by OpenTelemetry's conventions.
#[derive(Clone, Debug)]
pub struct Http {
    times: Family<AnswerLabels, Histogram, fn() -> Histogram>,
    active: Gauge,
}

/// A request in progress.
pub struct Active<'a> {
    http: &'a Http,
    began: Instant,
}

impl Http {
    /// Creates the metrics and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let http = Self {
            times: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            active: Gauge::default(),
        };
        registry.register(
            "http_server_request_duration_seconds",
            "Time from the head of a request to the head of its answer, by status",
            http.times.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests that are not answered yet",
            http.active.clone(),
        );
        http
    }

    /// Counts a request from now until the returned value is dropped.
    #[must_use]
    pub fn begin(&self) -> Active<'_> {
        self.active.inc();
        let began = Instant::now();
        Active { http: self, began }
    }
}

impl Active<'_> {
    /// Records the answer's `status`. The label of every method other than POST is `_OTHER`.
    pub fn answered(&self, is_post: bool, status: u16) {
        let answer = AnswerLabels {
            http_request_method: if is_post { "POST" } else { "_OTHER" },
            http_response_status_code: status,
        };
        let times = self.http.times.get_or_create(&answer);
        times.observe(self.began.elapsed().as_secs_f64());
    }
}

/// The request is answered, or its client closed the connection.
impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.http.active.dec();
    }
}
