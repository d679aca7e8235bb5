//! Why there is no telemetry.

/// Why telemetry can't start as configured. The message contains the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(pub(super) String);
