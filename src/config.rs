//! The configuration: loaded once, and parsed into types that hold only valid values.
//!
//! There are three sources: the compiled-in `config/revertd.toml`, the file of `--config`, and the
//! environment. A later one overrides an earlier one. This module must not know the clients of
//! broker and database, only the form of their addresses.

use std::collections::BTreeSet;
use std::path::Path;

use config::{Config, ConfigError, Environment, File, FileFormat};

use crate::common::diagnostic::Diagnostic;

/// Implements serde for a type that is written as text: `$parse` reads it, `Display` writes it.
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

mod amqp_url;
mod check;
mod choices;
mod database_url;
mod error;
mod files;
mod hide;
mod management_url;
mod settings;
mod sources;
mod types;
mod urls;

pub use amqp_url::AmqpUrl;
pub use choices::{AuthorizationMode, LogFormat, Policy};
pub use database_url::DatabaseUrl;
pub use error::SettingsError;
pub use files::{HeldFile, Identity, TlsFiles};
pub use management_url::ManagementUrl;
pub use settings::{
    AmqpSettings, AuthorizationSettings, DatabaseSettings, GatewaySettings, LedgerSettings,
    RetrySettings, RevertSettings, Settings, TelemetrySettings, TopologySettings, WorkerSettings,
};
pub use sources::{DEFAULTS, SettingSources};
pub use types::{CollectorUrl, Delay, ListenAddress, Name, ReplyToPattern, SchemaName, Size};
pub use urls::AmqpUrls;

/// Prefix of the addresses of direct reply-to, which needs no queue.
pub const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";

impl Settings {
    /// Loads the configuration from `file`, if given, and from the process's environment.
    ///
    /// # Errors
    /// If a value is invalid or the file can't be read. The error names the key and the source of
    /// its value.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load_from(
            file,
            std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// As [`Settings::load`], with the given environment.
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
            read.map_err(|SettingsError(error)| SettingsError(sources.with_origins(error)))?;
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
                SettingsError(format!("cannot read {}: {error}", path.display()).into())
            })?;
            // Parsed separately first, so that a syntax error names this file.
            let table = text.parse::<toml::Table>().map_err(|error| {
                // Show the parser's message, not the line: the line may hold a password.
                let before = error.span().map_or("", |span| &text[..span.start]);
                let (line, message) = (before.lines().count().max(1), error.message());
                let path = path.display();
                SettingsError(format!("{path} is not valid TOML: line {line}: {message}").into())
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
            .map_err(|error| SettingsError(error.to_string().into()))?;
        let mut settings: Self = serde_path_to_error::deserialize(config).map_err(|error| {
            let key = error.path().to_string();
            SettingsError(plain(&error.into_inner()).prefixed(format!("{key}: ")))
        })?;
        settings.resolve()?;
        settings.check()?;
        Ok(settings)
    }

    /// Most unacknowledged deliveries of the process for each of its workers.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        let default = self.worker.batch_max.saturating_mul(2);
        self.amqp.prefetch.unwrap_or(default)
    }

    /// Most unacknowledged deliveries of the process.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.prefetch().saturating_mul(self.worker.concurrency)
    }

    /// Most connections to the database.
    #[must_use]
    pub fn pool_size(&self) -> u16 {
        let default = self.worker.concurrency.saturating_add(1);
        self.database.pool_size.unwrap_or(default)
    }

    /// Whether a client needs a grant for the org that a request names.
    #[must_use]
    pub fn needs_grants(&self) -> bool {
        self.authorization.mode == AuthorizationMode::Grants
    }

    /// The retry ladder in the form that `domain` uses.
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

    /// The names of revertd's own queues, with the rungs of the configured ladder.
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

    /// Whether `queue` is revertd's own, which a request's `reply_to` must never name. A rung of
    /// any ladder counts, not only of the configured one.
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

    /// The same settings, with the derived defaults in place of keys that are not set.
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

/// The error itself, without its key.
fn plain(error: &ConfigError) -> Diagnostic {
    match error {
        ConfigError::At { error, .. } => plain(error),
        ConfigError::Type {
            unexpected,
            expected,
            ..
        } => Diagnostic::new(format!("is {unexpected}")).remedy(format!("it must be {expected}")),
        // The value's own parser wrote this text, remedy included: serde carries only a text.
        other => other.to_string().into(),
    }
}

mod resolve;
#[cfg(test)]
mod tests;
