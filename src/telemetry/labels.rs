//! Labels of the metrics. Their values come from revertd's own enums and from the configuration,
//! never from a request.

use prometheus_client::encoding::EncodeLabelSet;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    pub outcome: &'static str,
    pub reason: &'static str,
}

/// The kind of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReplayLabels {
    pub of: &'static str,
}

/// A rung of the retry ladder, named by its delay.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RungLabels {
    pub rung: String,
}

/// OpenTelemetry's attributes of messaging. Prometheus treats an empty label as absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[allow(clippy::struct_field_names, reason = "the names of the labels")]
pub struct MessagingLabels {
    messaging_system: &'static str,
    messaging_operation_name: &'static str,
    messaging_destination_name: String,
    error_type: &'static str,
}

/// OpenTelemetry's attributes of a database operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatementLabels {
    db_system_name: &'static str,
    db_operation_name: &'static str,
    error_type: &'static str,
}

impl OutcomeLabels {
    pub fn of(outcome: &'static str, reason: &'static str) -> Self {
        Self { outcome, reason }
    }
}

impl MessagingLabels {
    pub fn of(operation: &'static str, destination: &str, error_type: &'static str) -> Self {
        Self {
            messaging_system: "rabbitmq",
            messaging_operation_name: operation,
            messaging_destination_name: destination.into(),
            error_type,
        }
    }
}

impl StatementLabels {
    pub fn of(operation: &'static str, error_type: &'static str) -> Self {
        Self {
            db_system_name: "postgresql",
            db_operation_name: operation,
            error_type,
        }
    }
}
