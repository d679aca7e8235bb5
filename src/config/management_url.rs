//! The URL of RabbitMQ's management API. `Display` and `Debug` hide its password.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::files::TlsFiles;
use super::hide::hide_password;

/// The URL of the management API. It holds a login if that differs from the login of `amqp.url`.
#[derive(Clone)]
pub struct ManagementUrl {
    given: Url,
    port: u16,
    tls: Option<TlsFiles>,
}

impl ManagementUrl {
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "must look like http://HOST:15672 or https://USER:PASSWORD@HOST:15671";
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); it {FORM}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("has a scheme other than http or https; it {FORM}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("has a query or a fragment; it {FORM}"));
        }
        if url.password().is_some() && url.username().is_empty() {
            return Err(format!("has a password, but no user; it {FORM}"));
        }
        let (usual, schemes_own) = match url.scheme() {
            "https" => (15671, 443),
            _ => (15672, 80),
        };
        // `Url` drops the scheme's default port, which is not the default port of the plugin.
        let authority = text.split('/').nth(2).unwrap_or_default();
        let written = authority.ends_with(&format!(":{schemes_own}"));
        let unsaid = if written { schemes_own } else { usual };
        // Without a file, the system's authorities are trusted.
        let tls = (url.scheme() == "https").then_some(TlsFiles {
            section: "amqp",
            ca: None,
            identity: None,
        });
        Ok(Self {
            port: url.port().unwrap_or(unsaid),
            given: url,
            tls,
        })
    }

    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn set_tls(&mut self, tls: TlsFiles) {
        self.tls = Some(tls);
    }

    /// The TLS settings; `None` for an http URL.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// Host and port, for a socket.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        let host = self.given.host_str().unwrap_or("localhost");
        (host.trim_matches(['[', ']']), self.port)
    }

    /// Host and port, for messages and the header `Host`.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.given.host_str().unwrap_or("localhost");
        format!("{host}:{}", self.port)
    }

    /// The path before `/api`, without a trailing slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.given.path().trim_end_matches('/')
    }

    /// User and password, if the URL holds them.
    #[must_use]
    pub fn login(&self) -> Option<(String, Zeroizing<String>)> {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let password = self.given.password()?;
        Some((
            plain(self.given.username()),
            Zeroizing::new(plain(password)),
        ))
    }
}

impl fmt::Display for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hide_password(self.given.clone()).as_str())
    }
}

impl fmt::Debug for ManagementUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_type!(ManagementUrl, ManagementUrl::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_management_url_is_shown_without_its_password() {
        let url = ManagementUrl::parse("https://mon%40x:se%3Acret@[::1]/rabbit/").expect("valid");
        assert_eq!(url.address(), ("::1", 15671));
        assert_eq!(url.prefix(), "/rabbit");
        let (user, password) = url.login().expect("it has one");
        assert_eq!((user.as_str(), password.as_str()), ("mon@x", "se:cret"));
        assert_eq!(url.to_string(), "https://mon%40x:***@[::1]/rabbit/");
        let url = ManagementUrl::parse("http://rabbit").expect("valid");
        assert_eq!((url.address(), url.prefix()), (("rabbit", 15672), ""));
        assert!(url.login().is_none());
        let url = ManagementUrl::parse("https://u:p@rabbit:443").expect("valid");
        assert_eq!(url.address().1, 443);
    }

    #[test]
    fn an_invalid_management_url_is_rejected() {
        for (text, said) in [
            ("rabbit", "not a URL"),
            ("amqp://rabbit", "scheme"),
            ("http://rabbit/?x", "a query or a fragment"),
            ("http://:secret@rabbit", "no user"),
        ] {
            let error = ManagementUrl::parse(text).expect_err(text);
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }
}
