//! URLs of the broker. `Display` and `Debug` hide their secrets.

use std::fmt;

use url::Url;

use super::files::TlsFiles;

/// Replaces a password in output.
pub(super) const HIDDEN: &str = "***";

/// Seconds between heartbeats if the URL does not set them. Either side closes a connection that
/// has been silent for twice as long. RabbitMQ's own default is a minute; the client would need two
/// minutes to notice.
const HEARTBEAT: &str = "15";

/// The value of `amqp.url` in the built-in file.
const DEFAULT: &str = "amqp://guest:guest@localhost:5672/%2f";

/// Options of RabbitMQ's URLs that name files and checks. In revertd, keys name the files, and the
/// checks can't be disabled.
const FOREIGN: [&str; 8] = [
    "cacertfile",
    "certfile",
    "keyfile",
    "verify",
    "fail_if_no_peer_cert",
    "server_name_indication",
    "depth",
    "password",
];

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

/// URL of a broker. `Display` and `Debug` hide the password.
#[derive(Clone)]
pub struct AmqpUrl {
    given: Url,
    /// The URL with the heartbeat, and with the password from a file.
    complete: Url,
    external: bool,
    tls: Option<TlsFiles>,
}

impl AmqpUrl {
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "must look like amqp://USER:PASSWORD@HOST:5672/VHOST";
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); it {FORM}"))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(format!("has a scheme other than amqp or amqps; it {FORM}"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("names no host; it {FORM}"));
        }
        if let Some((key, _)) = url
            .query_pairs()
            .find(|(key, _)| FOREIGN.contains(&key.as_ref()))
        {
            return Err(format!(
                "has {key}=, which revertd does not read from an address; set amqp.ca_file, \
                amqp.cert_file, amqp.key_file or amqp.password_file (a server's certificate is \
                always verified)"
            ));
        }
        let external = match mechanism(&url).as_deref() {
            None | Some("plain" | "amqplain") => false,
            Some("external") => true,
            Some(other) => {
                return Err(format!(
                    "has auth_mechanism={other}; it must be one of: plain, amqplain, external"
                ));
            }
        };
        let mut complete = url.clone();
        if !url.query_pairs().any(|(key, _)| key == "heartbeat") {
            complete
                .query_pairs_mut()
                .append_pair("heartbeat", HEARTBEAT);
        }
        // Without a file, the system's authorities are trusted.
        let tls = (url.scheme() == "amqps").then_some(TlsFiles {
            section: "amqp",
            ca: None,
            identity: None,
        });
        Ok(Self {
            given: url,
            complete,
            external,
            tls,
        })
    }

    fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    fn set_password(&mut self, password: &str) {
        // `Url` escapes every other special character, but leaves % as it is.
        let escaped = password.replace('%', "%25");
        // It fails only for a URL that can't have a password.
        let _ = self.complete.set_password(Some(&escaped));
    }

    /// The TLS settings; `None` for an amqp URL.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The complete URL, with password and heartbeat.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.complete.as_str()
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> String {
        // `Url` keeps some characters percent-encoded.
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
            self.given
                .port()
                .unwrap_or(if self.is_secure() { 5671 } else { 5672 }),
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

/// The authentication mechanism, if the URL sets it.
fn mechanism(url: &Url) -> Option<String> {
    let mut pairs = url.query_pairs();
    let (_, value) = pairs.find(|(key, _)| key == "auth_mechanism")?;
    Some(value.to_lowercase())
}

/// Whether a part of user and password may be in the path, query or fragment: the client takes
/// everything before the first `@` as user and password.
pub(super) fn is_astray(url: &Url) -> bool {
    let behind = [Some(url.path()), url.query(), url.fragment()];
    behind.into_iter().flatten().any(|part| part.contains('@'))
}

pub(super) fn hide_password(mut url: Url) -> Url {
    if url.password().is_some() {
        // It fails only for a URL that can't have a password.
        let _ = url.set_password(Some(HIDDEN));
    }
    let secret = |(key, _): &(std::borrow::Cow<'_, str>, _)| key.contains("password");
    if url.query_pairs().any(|pair| secret(&pair)) {
        url.set_query(None);
    }
    url
}
