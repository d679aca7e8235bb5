//! Telemetry of a running process: metrics, readiness, traces.
//!
//! This is the only module that names the client crates of Prometheus and OpenTelemetry. It must
//! not know the broker, the database, or the meaning of a message: callers report batches, times
//! and counts, and this module stores them. It has no global state, so a process may hold several
//! instances, and a test does.

mod counts;
mod endpoint;
mod error;
mod gauges;
mod health;
mod http;
mod labels;
mod logins;
mod otlp;
mod status;
mod times;
mod traces;

pub use counts::{Counters, Names};
pub use endpoint::{Listening, NotReady, listen};
pub use error::TelemetryError;
pub use health::health;
pub use http::{Active, Http};
pub use logins::{LoginRefusal, Logins};
pub use otlp::Exporting;
pub use prometheus_client::registry::Registry;
pub use status::{
    Connections, InFlight, Pause, ProcessStatus, PublishRefusal, QueueDepth, QueueKind,
};
pub use times::Times;
pub use traces::{BatchTrace, SettledMessage, Traces};

use prometheus_client::metrics::info::Info;

/// A registry for the metrics of a process. It holds the version and `role`, the command that runs.
#[must_use]
pub fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("role", role)]);
    registry.register("revertd_build", "Version and role of the process", build);
    registry
}
