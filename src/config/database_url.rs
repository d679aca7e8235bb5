//! The URL of the database, or libpq's key=value pairs. The TLS options are parsed here, because
//! tokio-postgres supports fewer of them than libpq; tokio-postgres parses the rest.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::files::TlsFiles;
use super::hide::{HIDDEN, hide_password, is_astray};

const FORM: &str = "must look like postgres://USER:PASSWORD@HOST:5432/DATABASE";

/// `Display` and `Debug` hide the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    given: String,
    /// The URL without the TLS options.
    rest: String,
    options: TlsOptions,
    /// Whether the URL itself holds a password.
    has_password: bool,
    password: Option<String>,
    tls: Option<TlsFiles>,
}

/// The TLS options of a URL, by libpq's names.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsOptions {
    /// `sslmode`: whether to encrypt. An encrypted connection always verifies the server.
    pub encrypt: bool,
    /// `sslrootcert`: a path, or `system`.
    pub root_cert: Option<String>,
    /// `sslcert`: a path.
    pub cert: Option<String>,
    /// `sslkey`: a path.
    pub key: Option<String>,
}

/// An option of a URL. An unparsable option has an empty key; tokio-postgres reports the error.
struct Pair<'a> {
    key: String,
    value: String,
    /// The option as written.
    raw: &'a str,
}

impl DatabaseUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.split("://").next().unwrap_or_default();
        if text.contains("://") && !matches!(scheme, "postgres" | "postgresql") {
            return Err(FORM.into());
        }
        if text.trim().is_empty() {
            return Err(format!("is empty; it {FORM}"));
        }
        let body = ["postgres://", "postgresql://"]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        let (head, pairs, separator) = match body {
            Some(body) => of_query(text, body),
            None => ("", of_words(text), " "),
        };
        let mut has_password = body.is_some_and(|body| login(body).contains(':'));
        let (mut mode, mut options) = (None, TlsOptions::default());
        let mut kept = Vec::new();
        for pair in pairs {
            has_password |= pair.key == "password";
            let option = match pair.key.as_str() {
                "sslmode" => &mut mode,
                "sslrootcert" => &mut options.root_cert,
                "sslcert" => &mut options.cert,
                "sslkey" => &mut options.key,
                _ => {
                    kept.push(pair.raw);
                    continue;
                }
            };
            if option.replace(pair.value).is_some() {
                return Err(format!("sets {} twice; set it once", pair.key));
            }
        }
        let begins = if body.is_some() && !kept.is_empty() {
            "?"
        } else {
            ""
        };
        let rest = format!("{head}{begins}{}", kept.join(separator));
        options.encrypt = match mode.as_deref() {
            None | Some("disable" | "prefer") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(other) => {
                return Err(format!(
                    "has sslmode={other}; it must be one of: disable, prefer, require, verify-ca, \
                    verify-full"
                ));
            }
        };
        Ok(Self {
            given: text.to_owned(),
            rest,
            options,
            has_password,
            password: None,
            tls: None,
        })
    }

    /// The URL for tokio-postgres: without the TLS options, with a password that it holds.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.rest
    }

    /// The password from `password_file`, if that is set.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The TLS settings; `None` if the URL does not ask for encryption.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    pub(super) fn tls_options(&self) -> &TlsOptions {
        &self.options
    }

    pub(super) fn has_password(&self) -> bool {
        self.has_password
    }

    pub(super) fn set_password(&mut self, password: String) {
        self.password = Some(password);
    }

    pub(super) fn set_tls(&mut self, tls: TlsFiles) {
        self.tls = Some(tls);
    }
}

/// User and password, as tokio-postgres splits them: everything before the first `@`.
fn login(body: &str) -> &str {
    body.split_once('@').map_or("", |(login, _)| login)
}

/// The part of a URL before its options, the options, and their separator. As tokio-postgres does,
/// it takes the first `?` after user and password. `body` is the end of `text`.
fn of_query<'a>(text: &'a str, body: &'a str) -> (&'a str, Vec<Pair<'a>>, &'static str) {
    let behind = body.split_once('@').map_or(body, |(_, behind)| behind);
    let Some((_, query)) = behind.split_once('?') else {
        return (text, Vec::new(), "&");
    };
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').map(|raw| {
        let (key, value) = raw.split_once('=').unwrap_or(("", ""));
        let (key, value) = (decoded(key), decoded(value));
        Pair { key, value, raw }
    });
    (&text[..text.len() - query.len() - 1], pairs.collect(), "&")
}

/// The options of key=value pairs. Quotes enclose a value with spaces, and `\` escapes the next
/// character.
fn of_words(text: &str) -> Vec<Pair<'_>> {
    let mut pairs = Vec::new();
    let mut at = 0;
    let skip = |at: usize, wanted: &dyn Fn(char) -> bool| {
        text[at..]
            .find(|c| !wanted(c))
            .map_or(text.len(), |found| at + found)
    };
    loop {
        let start = skip(at, &char::is_whitespace);
        let key_end = skip(start, &|c| !c.is_whitespace() && c != '=');
        let equals = skip(key_end, &char::is_whitespace);
        let key = text[start..key_end].to_owned();
        if key.is_empty() || !text[equals..].starts_with('=') {
            let raw = &text[start..];
            let (key, value) = Default::default();
            if !raw.is_empty() {
                pairs.push(Pair { key, value, raw });
            }
            return pairs;
        }
        let value_start = skip(equals + 1, &char::is_whitespace);
        let (value, length) = word(&text[value_start..]);
        at = value_start + length;
        let raw = &text[start..at];
        pairs.push(Pair { key, value, raw });
    }
}

/// The value at the start of `text`, and its length as written.
fn word(text: &str) -> (String, usize) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((place, c)) = characters.next() {
        match c {
            '\'' if quoted => return (value, place + 1),
            c if c.is_whitespace() && !quoted => return (value, place),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, text.len())
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.given) {
            // A password with an unescaped /, ? or # reaches the path, query or fragment.
            Ok(url) if is_astray(&url) => f.write_str(HIDDEN),
            Ok(url) => f.write_str(hide_password(url).as_str()),
            // `Url` does not parse several hosts, nor key=value pairs.
            Err(_) if self.given.contains("://") => {
                let (scheme, rest) = self.given.split_once("://").unwrap_or_default();
                let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
                write!(
                    f,
                    "{scheme}://{HIDDEN}@{}",
                    hosts.split('?').next().unwrap_or(hosts)
                )
            }
            Err(_) => {
                let shown = |pair: &Pair<'_>| {
                    matches!(
                        pair.key.as_str(),
                        "host" | "hostaddr" | "port" | "user" | "dbname" | "sslmode"
                    )
                };
                let pairs = of_words(&self.given).into_iter().filter(shown);
                let pairs: Vec<_> = pairs.map(|pair| pair.raw).collect();
                f.write_str(&pairs.join(" "))
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
