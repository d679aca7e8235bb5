//! URLs of the broker. `Display` and `Debug` hide their secrets.

use std::fmt;

use super::amqp_url::AmqpUrl;
use super::files::TlsFiles;

/// The value of `amqp.url` in the built-in file.
const DEFAULT: &str = "amqp://guest:guest@localhost:5672/%2f";

/// URLs of the broker: one, or one for each node of a cluster. `Display` and `Debug` hide the
/// passwords.
#[derive(Clone)]
pub struct AmqpUrls(Vec<AmqpUrl>);

impl AmqpUrls {
    fn parse(text: &str) -> Result<Self, String> {
        // A password may contain a comma; a comma before a scheme separates two URLs.
        let text = text.replace(", ", ",");
        let separated = text
            .replace(",amqp://", "\namqp://")
            .replace(",amqps://", "\namqps://");
        Self::all(separated.split('\n'))
    }

    fn all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let urls = texts
            .into_iter()
            .map(AmqpUrl::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = urls.first() else {
            return Err(
                "holds no URL; it must look like amqp://USER:PASSWORD@HOST:5672/VHOST".into(),
            );
        };
        let same = |url: &AmqpUrl| {
            url.given.username() == first.given.username() && url.given.path() == first.given.path()
        };
        if !urls.iter().all(same) {
            return Err(
                "has addresses of different users or virtual hosts; they must be nodes of \
                one cluster"
                    .into(),
            );
        }
        let same =
            |url: &AmqpUrl| url.is_secure() == first.is_secure() && url.external == first.external;
        if !urls.iter().all(same) {
            return Err(
                "has addresses that differ in encryption or in auth_mechanism; \
                        write all with amqps:// and the same auth_mechanism"
                    .into(),
            );
        }
        Ok(Self(urls))
    }

    /// Whether the connections are encrypted.
    pub(super) fn is_secure(&self) -> bool {
        self.0.iter().all(AmqpUrl::is_secure)
    }

    /// Whether the broker takes the login from the client certificate.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.0.iter().all(|url| url.external)
    }

    pub(super) fn has_user(&self) -> bool {
        self.0.iter().all(|url| !url.given.username().is_empty())
    }

    pub(super) fn has_password(&self) -> bool {
        self.0.iter().any(|url| url.given.password().is_some())
    }

    /// Whether the URL is the default, password included.
    pub(super) fn is_default(&self) -> bool {
        self.0.iter().all(|url| url.given.as_str() == DEFAULT)
    }

    pub(super) fn set_password(&mut self, password: &str) {
        self.0.iter_mut().for_each(|url| url.set_password(password));
    }

    pub(super) fn set_tls(&mut self, tls: &TlsFiles) {
        self.0
            .iter_mut()
            .for_each(|url| url.tls = Some(tls.clone()));
    }

    /// The URLs in the given order; at least one.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &AmqpUrl> + Clone {
        self.0.iter()
    }
}

impl fmt::Display for AmqpUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&shown.join(","))
    }
}

impl fmt::Debug for AmqpUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> serde::Deserialize<'de> for AmqpUrls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "must be an address, or a list of addresses")]
        enum Given {
            One(String),
            Many(Vec<String>),
        }
        let parsed = match Given::deserialize(deserializer)? {
            Given::One(text) => Self::parse(&text),
            Given::Many(texts) => Self::all(texts.iter().map(String::as_str)),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for AmqpUrls {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
