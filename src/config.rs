//! The configuration: loaded once, parsed into types that can't be wrong.
//!
//! Sources, of which a later one overrides an earlier one: the compiled-in `config/revertd.toml`, the file of `--config`, the
//! environment. It must not know the clients of broker and database, only the form of their addresses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A type that is written as text: parsed when read, shown by `Display`.
macro_rules! text_type {
    ($name:ident, $parse:path) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                $parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

mod check;
mod database_url;
mod files;
mod management_url;
mod sources;
mod types;
mod urls;

pub use database_url::DatabaseUrl;
pub use files::{HeldFile, Identity, TlsFiles};
pub use management_url::ManagementUrl;
pub use sources::SettingSources;
pub use types::{
    AuthorizationMode, CollectorUrl, Delay, ListenAddress, LogFormat, Name, Policy, ReplyToPattern,
    SchemaName, Size,
};
pub use urls::{AmqpUrl, AmqpUrls};

/// The compiled-in file: every key and its default.
pub const DEFAULTS: &str = include_str!("../config/revertd.toml");

const PREFIX: &str = "REVERTD_";

/// How the address of a direct reply-to begins, which needs no queue.
pub const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";

/// Why the configuration can't be used; one sentence for the operator, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct SettingsError(String);

/// The effective configuration. Fields are the keys of `config/revertd.toml`, where they are explained.
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

impl Settings {
    /// Loads the configuration from `file`, where given, and the process's environment.
    ///
    /// # Errors
    /// What is wrong, with the key and where its value came from.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load_from(
            file,
            std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// The same with an environment of the caller's.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_from(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut sources = SettingSources::default();
        let read = Self::read(file, environment, &mut sources);
        let mut settings =
            read.map_err(|SettingsError(error)| SettingsError(sources.told(&error)))?;
        settings.sources = sources;
        Ok(settings)
    }

    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        sources: &mut SettingSources,
    ) -> Result<Self, SettingsError> {
        let environment = sources.choose(environment)?.into_iter().collect();
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                SettingsError(format!("cannot read {}: {error}", path.display()))
            })?;
            // Parsed by itself first, so that a syntax error names this file.
            let table = text.parse::<toml::Table>().map_err(|error| {
                // Its own words, and not the line, in which a password may stand.
                let before = error.span().map_or("", |span| &text[..span.start]);
                let (line, what) = (before.lines().count().max(1), error.message());
                SettingsError(format!(
                    "{} is not valid TOML: line {line}: {what}",
                    path.display()
                ))
            })?;
            sources.read(path, &table);
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        sources.check()?;
        let config = builder
            .add_source(
                Environment::with_prefix("REVERTD")
                    .prefix_separator("_")
                    .separator("__")
                    .try_parsing(true)
                    .list_separator(",")
                    .with_list_parse_key("retry.delays")
                    .with_list_parse_key("amqp.trusted_users")
                    .source(Some(environment)),
            )
            .build()
            .map_err(|error| SettingsError(error.to_string()))?;
        let mut settings: Self = serde_path_to_error::deserialize(config).map_err(|error| {
            let key = error.path().to_string();
            SettingsError(format!("{key}: {}", plain(&error.into_inner())))
        })?;
        settings.settle()?;
        settings.check()?;
        Ok(settings)
    }

    /// Requests that a process holds unacknowledged, for each of its workers.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        let default = self.worker.batch_max.saturating_mul(2);
        self.amqp.prefetch.unwrap_or(default)
    }

    /// Requests that a process holds unacknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.prefetch().saturating_mul(self.worker.concurrency)
    }

    /// Connections to the database, at most.
    #[must_use]
    pub fn pool_size(&self) -> u16 {
        let default = self.worker.concurrency.saturating_add(1);
        self.database.pool_size.unwrap_or(default)
    }

    /// Whether a client needs a grant for the org of a request.
    #[must_use]
    pub fn needs_grants(&self) -> bool {
        self.authorization.mode == AuthorizationMode::Grants
    }

    /// The ladder of retries, for the pure part.
    #[must_use]
    pub fn ladder(&self) -> crate::domain::retry::Ladder {
        crate::domain::retry::Ladder {
            delays: self.retry.delays.iter().map(|delay| delay.0).collect(),
            usage_not_found_attempts: self.retry.usage_not_found_attempts,
        }
    }

    /// The name of the retry queue of each rung.
    #[must_use]
    pub fn retry_queues(&self) -> Vec<String> {
        let prefix = self.topology.retry_queue_prefix.as_str();
        let delays = self.retry.delays.iter();
        delays.map(|delay| format!("{prefix}.{delay}")).collect()
    }

    /// The queues of revertd's own, the rungs of the configured ladder among them.
    #[must_use]
    pub fn own_queues(&self) -> BTreeSet<String> {
        let named = self.named_queues().map(ToString::to_string);
        named.into_iter().chain(self.retry_queues()).collect()
    }

    fn named_queues(&self) -> [&Name; 4] {
        let topology = &self.topology;
        [
            &topology.work_queue,
            &topology.reply_queue,
            &topology.denied_queue,
            &topology.dead_letter_queue,
        ]
    }

    /// Whether a request's `reply_to` must never name it: a rung of any ladder is revertd's own as well.
    fn is_own_queue(&self, queue: &str) -> bool {
        let prefix = self.topology.retry_queue_prefix.as_str();
        let rest = queue.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('.'))
            || self
                .named_queues()
                .iter()
                .any(|name| name.as_str() == queue)
    }

    /// Whether the event of a request may be copied to `queue`.
    #[must_use]
    pub fn may_reply_to(&self, queue: &str) -> bool {
        let allowed =
            queue.starts_with(DIRECT_REPLY_TO) || self.amqp.reply_to_pattern.allows(queue);
        allowed && !self.is_own_queue(queue)
    }

    /// The same with what holds in place of keys that are not set.
    #[must_use]
    pub fn effective(&self) -> Self {
        let mut effective = self.clone();
        effective.amqp.prefetch = Some(self.prefetch());
        effective.database.pool_size = Some(self.pool_size());
        effective
    }

    /// The effective configuration as TOML, without secrets.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.effective()).expect("settings are tables of plain values")
    }
}

/// The error itself: its key is told before it.
fn plain(error: &ConfigError) -> String {
    match error {
        ConfigError::At { error, .. } => plain(error),
        ConfigError::Type {
            unexpected,
            expected,
            ..
        } => format!("is {unexpected}; it must be {expected}"),
        other => other.to_string(),
    }
}

mod resolve;
#[cfg(test)]
mod tests;
