//! URL of a broker. `Display` and `Debug` hide its secrets.

use std::fmt;

use url::Url;

use super::files::TlsFiles;
use super::hide::hide_password;

/// Seconds between heartbeats if the URL does not set them. Either side closes a connection that
/// has been silent for twice as long. RabbitMQ's own default is a minute; the client would need two
/// minutes to notice.
const HEARTBEAT: &str = "15";

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

/// URL of a broker. `Display` and `Debug` hide the password.
#[derive(Clone)]
pub struct AmqpUrl {
    pub(super) given: Url,
    /// The URL with the heartbeat, and with the password from a file.
    complete: Url,
    pub(super) external: bool,
    pub(super) tls: Option<TlsFiles>,
}

impl AmqpUrl {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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

    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn set_password(&mut self, password: &str) {
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
