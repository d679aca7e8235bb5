//! RabbitMQ's management API, of which only questions are asked: what AMQP does not show.
//!
//! It must not know what the answers mean.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::connection::parsed;
use crate::common::diagnostic::Diagnostic;
use crate::common::http_client::{
    self, AUTHORIZATION, HttpError, HttpLimits, HttpServer, Request, StatusCode,
};
use crate::common::tls;
use crate::config::{ManagementUrl, Settings};

/// The limits of a question: how long the answer may take, and how large it may be.
const LIMITS: HttpLimits = HttpLimits {
    time: Duration::from_secs(10),
    body_bytes: 4 << 20,
};

/// Queues that are listed at most.
const QUEUES_MAX: u32 = 100;

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// No server listens there, or it is no management API.
    NoPlugin(String),
    /// The login is not known, or may not ask that.
    Forbidden(String),
    /// There is no such thing.
    Missing,
    /// Something else.
    Failed(Diagnostic),
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoPlugin(why) => write!(f, "there is no management API: {why}"),
            Self::Forbidden(why) => write!(f, "the management API refuses: {why}"),
            Self::Missing => f.write_str("the management API knows nothing of this"),
            Self::Failed(problem) => write!(f, "the management API fails: {problem}"),
        }
    }
}

/// The API, a login for it, and the virtual host that is asked about.
pub struct Management {
    url: ManagementUrl,
    authorization: Zeroizing<String>,
    vhost: String,
}

impl Management {
    /// `None` where it isn't configured.
    pub fn new(settings: &Settings) -> Option<Self> {
        let url = settings.amqp.management_url.clone()?;
        let amqp = settings.amqp.url.iter().next()?;
        let uri = parsed(amqp).ok()?;
        let (user, password) = url.login().unwrap_or_else(|| {
            let login = uri.authority.userinfo;
            (login.username, Zeroizing::new(login.password))
        });
        let pair = Zeroizing::new(format!("{user}:{}", *password));
        let authorization = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        Some(Self {
            url,
            authorization,
            vhost: escaped(&uri.vhost),
        })
    }

    /// Host and port, for messages.
    pub fn host(&self) -> String {
        self.url.host()
    }

    /// Whether the password goes in the clear over a network.
    pub fn is_exposed(&self) -> bool {
        self.url.tls().is_none() && !tls::is_local(self.url.address().0)
    }

    /// Asks about something in the virtual host: `queues`, a name, and what of it.
    pub async fn of(&self, kind: &str, name: &str, rest: &str) -> Result<Value, Unanswered> {
        let (vhost, name) = (&self.vhost, escaped(name));
        self.get(&format!("{kind}/{vhost}/{name}{rest}")).await
    }

    /// Asks about a user of the broker.
    pub async fn user(&self, name: &str) -> Result<Value, Unanswered> {
        self.get(&format!("users/{}", escaped(name))).await
    }

    /// The queues of the virtual host whose names match a regular expression, with how many
    /// messages each holds.
    pub async fn queues(&self, pattern: &str) -> Result<Vec<(String, u64)>, Unanswered> {
        let (vhost, pattern) = (&self.vhost, escaped(pattern));
        let found = self
            .get(&format!(
                "queues/{vhost}?page=1&page_size={QUEUES_MAX}&use_regex=true&name={pattern}"
            ))
            .await?;
        let queue = |queue: &Value| {
            let name = queue["name"].as_str()?.to_owned();
            Some((name, queue["messages"].as_u64().unwrap_or_default()))
        };
        let items = found["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(queue).collect())
    }

    /// Asks for what is below `/api`.
    pub async fn get(&self, path: &str) -> Result<Value, Unanswered> {
        let at = self.host();
        let failed =
            |error: &dyn std::fmt::Display| Unanswered::Failed(format!("{at}: {error}").into());
        let request = Request::get(format!("{}/api/{path}", self.url.prefix()))
            .header(AUTHORIZATION, self.authorization.as_str())
            .body(Bytes::new())
            .map_err(|error| failed(&error))?;
        let (host, port) = self.url.address();
        let server = HttpServer {
            host,
            port,
            authority: &at,
            tls: self.url.tls(),
        };
        let answer = http_client::send(server, request, LIMITS).await;
        let answer = answer.map_err(|error| match error {
            HttpError::Connect(_) | HttpError::NoAnswer(_) => {
                Unanswered::NoPlugin(format!("{at}: {error}"))
            }
            HttpError::Tls(error) => match tls::fault(&error, "amqp") {
                Some(fault) => Unanswered::Failed(fault.problem.prefixed(format!("{at} "))),
                None => failed(&error),
            },
            HttpError::Body(_) | HttpError::Request(_) => failed(&error),
            HttpError::Silent => Unanswered::Failed(format!("{at} does not answer").into()),
        })?;
        let status = answer.status();
        let value: Result<Value, _> = serde_json::from_slice(answer.body());
        let reason = value
            .as_ref()
            .ok()
            .and_then(|value| value["reason"].as_str());
        let reason = reason.unwrap_or(status.as_str()).to_owned();
        match (status, value) {
            (StatusCode::OK, Ok(value)) => Ok(value),
            (StatusCode::OK, Err(_)) => Err(Unanswered::NoPlugin(format!(
                "{at} answers with something else"
            ))),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Err(Unanswered::Forbidden(format!("{at}: {reason}")))
            }
            (StatusCode::NOT_FOUND, _) => Err(Unanswered::Missing),
            _ => Err(failed(&reason)),
        }
    }
}

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}
