//! Addresses of the servers. They show themselves without their secrets.

use std::fmt;

use url::Url;

/// What stands for a password wherever a secret would be shown.
const HIDDEN: &str = "***";

/// Seconds between heartbeats where the address says nothing else. A connection that has been silent for twice
/// as long is given up by either side; RabbitMQ's own default, a minute, would take the client two to notice.
const HEARTBEAT: &str = "15";

/// Addresses of the broker: one, or one for each node of a cluster. Shows itself without the passwords.
#[derive(Clone)]
pub struct AmqpUrls(Vec<AmqpUrl>);

impl AmqpUrls {
    fn parse(text: &str) -> Result<Self, String> {
        // A comma may stand in a password; before a scheme it ends an address.
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
                "names no address; it must look like amqp://USER:PASSWORD@HOST:5672/VHOST".into(),
            );
        };
        let same = |url: &AmqpUrl| {
            url.given.username() == first.given.username() && url.given.path() == first.given.path()
        };
        if !urls.iter().all(same) {
            return Err("has addresses of different users or virtual hosts; they must be nodes of one cluster".into());
        }
        Ok(Self(urls))
    }

    /// The addresses, in the order in which they were given; at least one.
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

/// Address of a broker. Shows itself without the password.
#[derive(Clone)]
pub struct AmqpUrl {
    given: Url,
    /// With the heartbeat.
    complete: Url,
}

impl AmqpUrl {
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "must look like amqp://USER:PASSWORD@HOST:5672/VHOST";
        let url = Url::parse(text).map_err(|error| format!("is no URL ({error}); it {FORM}"))?;
        match url.scheme() {
            "amqp" if url.host_str().is_some_and(|host| !host.is_empty()) => {
                let mut complete = url.clone();
                if !url.query_pairs().any(|(key, _)| key == "heartbeat") {
                    complete
                        .query_pairs_mut()
                        .append_pair("heartbeat", HEARTBEAT);
                }
                Ok(Self {
                    given: url,
                    complete,
                })
            }
            "amqp" => Err(format!("names no host; it {FORM}")),
            "amqps" => Err(
                "amqps is not supported by this version; use amqp:// within a trusted \
                            network, or through a TLS tunnel"
                    .into(),
            ),
            _ => Err(format!("has a scheme that is not amqp; it {FORM}")),
        }
    }

    /// The whole address, password and heartbeat included.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.complete.as_str()
    }

    /// The login.
    #[must_use]
    pub fn user(&self) -> String {
        // A URL keeps some characters of it as % and two digits.
        let mut parts = self.given.username().split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let decoded = part
                .get(..2)
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.extend(decoded.unwrap_or(b'%').to_be_bytes());
            bytes.extend(
                part.get(if decoded.is_some() { 2 } else { 0 }..)
                    .unwrap_or_default()
                    .bytes(),
            );
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.given.host_str().unwrap_or("localhost");
        format!("{host}:{}", self.address().1)
    }

    /// Host and port, for a socket.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        let host = self.given.host_str().unwrap_or("localhost");
        (
            host.trim_matches(['[', ']']),
            self.given.port().unwrap_or(5672),
        )
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hide_password(self.given.clone()).as_str())
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Address of the database: a URL, or libpq's key=value pairs. Shows itself without the password.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.split("://").next().unwrap_or_default();
        if text.contains("://") && !matches!(scheme, "postgres" | "postgresql") {
            return Err("must look like postgres://USER:PASSWORD@HOST:5432/DATABASE".into());
        }
        if text.trim().is_empty() {
            return Err(
                "is empty; it must look like postgres://USER:PASSWORD@HOST:5432/DATABASE".into(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole address, password included.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.0) {
            // A password with an unescaped / ends up in the path.
            Ok(url) if url.path().contains('@') => f.write_str(HIDDEN),
            Ok(url) => f.write_str(hide_password(url).as_str()),
            // Several hosts are no URL to the parser; key=value pairs are none at all.
            Err(_) if self.0.contains("://") => {
                let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
                let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
                write!(
                    f,
                    "{scheme}://{HIDDEN}@{}",
                    hosts.split('?').next().unwrap_or(hosts)
                )
            }
            Err(_) => {
                let shown = |pair: &&str| {
                    let key = pair.split_once('=').map_or("", |(key, _)| key);
                    matches!(
                        key,
                        "host" | "hostaddr" | "port" | "user" | "dbname" | "sslmode"
                    )
                };
                let pairs: Vec<_> = self.0.split(' ').filter(shown).collect();
                // A quoted password with a space in it can't be told apart by words.
                if self.0.contains('\'') {
                    f.write_str(HIDDEN)
                } else {
                    f.write_str(&pairs.join(" "))
                }
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_type!(DatabaseUrl, DatabaseUrl::parse);

fn hide_password(mut url: Url) -> Url {
    if url.password().is_some() {
        // It fails only for URLs that can't have a password.
        let _ = url.set_password(Some(HIDDEN));
    }
    let secret = |(key, _): &(std::borrow::Cow<'_, str>, _)| key.contains("password");
    if url.query_pairs().any(|pair| secret(&pair)) {
        url.set_query(None);
    }
    url
}
