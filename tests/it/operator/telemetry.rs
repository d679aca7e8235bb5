//! Telemetry of a worker: metrics, readiness, spans, and the trace id of log lines.

mod counters;
mod dashboards;
mod health;
mod limits;
mod readiness;
mod traces;

use lapin::types::AMQPValue;

use crate::support::Request;

/// A trace of its own, as a `traceparent`.
fn traceparent(trace_id: &str, flags: &str) -> String {
    format!("00-{trace_id}-b7ad6b7169203331-{flags}")
}

fn traced(request: Request, traceparent: &str) -> Request {
    request.header("traceparent", AMQPValue::LongString(traceparent.into()))
}

fn trace_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
