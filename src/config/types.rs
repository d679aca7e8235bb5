//! Types of configuration values that are written in a format of their own.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use regex::Regex;

/// Name of an exchange, a queue or a routing key; an AMQP short string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Leaves room for the suffixes that revertd appends, within AMQP's 255 bytes.
    const MAX_BYTES: usize = 200;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > Self::MAX_BYTES || text.chars().any(char::is_control) {
            return Err("must be a name of 1 to 200 bytes without control characters".into());
        }
        if text.starts_with("amq.") {
            return Err("must not begin with \"amq.\", which the broker reserves".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Name, Name::parse);

/// Name of a schema, which statements quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    fn parse(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !starts || !text.chars().all(plain) || text.len() > 63 {
            return Err(
                "must be a schema's name: lower-case letters, digits and _, \
                 not a digit first, at most 63 bytes"
                    .into(),
            );
        }
        if text == "revertd" {
            return Err("must not be revertd, the schema of revertd's own tables".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(SchemaName, SchemaName::parse);

/// Delay of a rung of the retry ladder. `Display` writes it as in the queue's name: `5s`,
/// `1m30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub Duration);

impl Delay {
    fn parse(text: &str) -> Result<Self, String> {
        let delay = humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 250ms, 5s, 2m or 24h"))?;
        // RabbitMQ measures TTLs in milliseconds; 28 days are the longest useful delay.
        let whole = delay.subsec_nanos() % 1_000_000 == 0;
        if !whole || delay.is_zero() || delay > Duration::from_hours(24 * 28) {
            return Err("must be whole milliseconds, from 1ms to 28 days".into());
        }
        Ok(Self(delay))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spaced = humantime::format_duration(self.0).to_string();
        f.write_str(&spaced.replace(' ', ""))
    }
}

text_type!(Delay, Delay::parse);

/// Address that a server of revertd listens on: IP address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    fn parse(text: &str) -> Result<Self, String> {
        let address = text.parse().map_err(|_| {
            "must be an IP address and a port, such as 127.0.0.1:7400, 0.0.0.0:7400 or [::]:7400"
        })?;
        Ok(Self(address))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(ListenAddress, ListenAddress::parse);

/// A number of bytes; `Display` writes it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let size = text.parse::<ByteSize>();
        let size =
            size.map_err(|_| "must be a size: 64KiB, 1GiB, or a number of bytes".to_owned())?;
        Ok(Self(size.as_u64()))
    }

    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

text_type!(Size, Size::parse);

/// URL of the OpenTelemetry collector that receives the spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl(String);

impl CollectorUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let message = "must be the URL of a collector's OTLP/HTTP receiver, such as \
            http://localhost:4318; set credentials in OTEL_EXPORTER_OTLP_HEADERS";
        let url = url::Url::parse(text).map_err(|_| message)?;
        if url.scheme() == "https" {
            return Err("must not be https: revertd sends spans without TLS; \
                        use a collector on this machine that forwards them"
                .into());
        }
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if url.scheme() != "http" || !url.has_host() || !plain || url.fragment().is_some() {
            return Err(message.into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The URL, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(CollectorUrl, CollectorUrl::parse);

/// Pattern of the queues that a request's `reply_to` may name.
#[derive(Clone, Debug)]
pub struct ReplyToPattern(Regex);

impl ReplyToPattern {
    fn parse(text: &str) -> Result<Self, String> {
        Regex::new(text)
            .map(Self)
            .map_err(|error| format!("is not a regular expression: {error}"))
    }

    /// Whether a `reply_to` may name `queue`.
    #[must_use]
    pub fn allows(&self, queue: &str) -> bool {
        self.0.is_match(queue)
    }
}

impl fmt::Display for ReplyToPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_type!(ReplyToPattern, ReplyToPattern::parse);
