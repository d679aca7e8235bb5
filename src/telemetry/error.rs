//! Why there is no telemetry.

/// Why telemetry can't be had as configured. Says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(pub(super) String);
