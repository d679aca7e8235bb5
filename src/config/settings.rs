//! The settings: one field for each key, one type for each section.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::choices::{AuthorizationMode, LogFormat, Policy};
use super::database_url::DatabaseUrl;
use super::files::HeldFile;
use super::management_url::ManagementUrl;
use super::sources::SettingSources;
use super::types::{CollectorUrl, Delay, ListenAddress, Name, ReplyToPattern, SchemaName, Size};
use super::urls::AmqpUrls;
use crate::domain::request::RequestLimits;

/// The effective configuration. Fields are the keys of `config/revertd.toml`, where they are
/// explained.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub amqp: AmqpSettings,
    pub topology: TopologySettings,
    pub database: DatabaseSettings,
    pub worker: WorkerSettings,
    pub retry: RetrySettings,
    pub revert: RevertSettings,
    pub ledger: LedgerSettings,
    pub authorization: AuthorizationSettings,
    pub telemetry: TelemetrySettings,
    pub gateway: GatewaySettings,
    /// Where the values came from.
    #[serde(skip)]
    pub sources: SettingSources,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AmqpSettings {
    pub url: AmqpUrls,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
    pub max_bytes_in_hand: Size,
    pub max_message_bytes: Size,
    pub max_group: u16,
    pub max_group_bytes: Size,
    pub reply_to_pattern: ReplyToPattern,
    pub trusted_users: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_url: Option<ManagementUrl>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TopologySettings {
    pub declare: bool,
    pub request_exchange: Name,
    pub request_key: Name,
    pub alternate_exchange: Name,
    pub work_queue: Name,
    pub work_queue_max_bytes: Size,
    pub retry_queue_prefix: Name,
    pub retry_queue_max_bytes: Size,
    pub reply_exchange: Name,
    pub reply_queue_declare: bool,
    pub reply_queue: Name,
    pub reply_queue_max_bytes: Size,
    pub denied_queue: Name,
    pub denied_queue_max_bytes: Size,
    pub dead_letter_exchange: Name,
    pub dead_letter_queue: Name,
    pub dead_letter_queue_max_bytes: Size,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DatabaseSettings {
    pub url: DatabaseUrl,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<HeldFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<u16>,
    #[serde(with = "humantime_serde")]
    pub lock_timeout: Duration,
    pub migrate_on_start: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WorkerSettings {
    pub concurrency: u16,
    pub batch_max: u16,
    pub max_crashes: u32,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RetrySettings {
    pub delays: Vec<Delay>,
    pub usage_not_found_attempts: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RevertSettings {
    pub policy: Policy,
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LedgerSettings {
    pub schema: SchemaName,
    pub manage: bool,
    pub platform_account: Uuid,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AuthorizationSettings {
    pub mode: AuthorizationMode,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TelemetrySettings {
    pub log_format: LogFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<CollectorUrl>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct GatewaySettings {
    pub listen: ListenAddress,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    pub max_in_flight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl AmqpSettings {
    /// The bounds of bodies.
    #[must_use]
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            message_bytes: self.max_message_bytes.bytes(),
            group_bytes: self.max_group_bytes.bytes(),
            group_requests: self.max_group.into(),
        }
    }
}
