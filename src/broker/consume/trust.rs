//! The client of a message: the login that the broker authenticated, or the client that a trusted
//! login names.
//!
//! A message that is published again has the `user_id` of the login that publishes it, since the
//! broker refuses any other, and names the client in `x-client`. This header counts only from the
//! worker's own login and from `amqp.trusted_users`.

use std::sync::Arc;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use crate::broker::properties::{
    ATTEMPTS, CLAIMED, CLIENT, FIRST_ATTEMPT_AT, REPLAYED, UNTRUSTED_SINCE, header, text,
};
use crate::config::Settings;
use crate::domain::request::ClientClaim;

/// The longest chain of logins that name each other. Each login that a worker had while a message
/// waited adds one.
const NAMES_MAX: usize = 8;

/// The logins that may name the client of a message.
#[derive(Clone, Debug)]
pub struct Trust {
    user: Arc<str>,
    others: Arc<[String]>,
}

/// The client of a message, and the chain of logins that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speakers {
    /// The client; if there is a claim, the login that makes it.
    pub client: String,
    pub claim: Option<ClientClaim>,
}

impl Trust {
    /// The trust of a process that is logged in as `user`.
    pub fn new(user: &str, settings: &Settings) -> Self {
        Self {
            user: user.into(),
            others: settings.amqp.trusted_users.iter().cloned().collect(),
        }
    }

    /// The process's own login.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    fn trusts(&self, login: &str) -> bool {
        // A message without a login can't be trusted.
        !login.is_empty() && (*login == *self.user || self.others.iter().any(|one| one == login))
    }

    /// Whether the login that published a message is trusted.
    pub fn vouches(&self, properties: &BasicProperties) -> bool {
        self.trusts(publisher(properties))
    }

    /// The client of a message. `noted`: the message is a dead letter with the worker's headers.
    pub fn speakers(&self, properties: &BasicProperties, noted: bool) -> Speakers {
        let from = publisher(properties);
        let mut names = vec![from.to_owned()];
        // A publisher's own x-client has no meaning. A worker always sets user_id.
        if self.trusts(from) || noted || (!from.is_empty() && is_published_again(properties)) {
            names.extend(header(properties, CLIENT).map(|client| text(client).unwrap_or_default()));
            names.extend(claimed(properties));
        }
        // Each login of the chain names the next.
        let last = names.len() - 1;
        let believed = names.iter().take_while(|name| self.trusts(name)).count();
        let rest = names.split_off(believed.min(last));
        let (client, claimed) = rest.split_first().expect("the last one at least");
        let since = header(properties, UNTRUSTED_SINCE).filter(|_| self.trusts(from));
        Speakers {
            client: client.clone(),
            claim: (!claimed.is_empty()).then(|| ClientClaim {
                names: claimed.to_vec(),
                since: since.and_then(timestamp),
            }),
        }
    }
}

/// The login that the broker authenticated; empty if the message has no `user_id`.
pub fn publisher(properties: &BasicProperties) -> &str {
    let user = properties.user_id().as_ref();
    user.map_or("", ShortString::as_str)
}

/// Whether its headers say that revertd published it again.
fn is_published_again(properties: &BasicProperties) -> bool {
    let has = |name| header(properties, name).is_some();
    let on_a_rung = has(ATTEMPTS) && has(FIRST_ATTEMPT_AT);
    has(CLIENT) && (on_a_rung || has(REPLAYED) || has(CLAIMED))
}

fn claimed(properties: &BasicProperties) -> Vec<String> {
    let Some(value) = header(properties, CLAIMED) else {
        return Vec::new();
    };
    let names = match value {
        AMQPValue::FieldArray(names) if names.as_slice().len() <= NAMES_MAX => {
            names.as_slice().iter().map(text).collect()
        }
        _ => None,
    };
    // A header that can't be parsed names no client, and is never trusted.
    names.unwrap_or_else(|| vec![String::new(), String::new()])
}

fn timestamp(value: &AMQPValue) -> Option<Timestamp> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;

    use super::*;
    use crate::broker::properties::array;

    const RUNG: [&str; 2] = [ATTEMPTS, FIRST_ATTEMPT_AT];

    fn trust(user: &str, others: &[&str]) -> Trust {
        Trust {
            user: user.into(),
            others: others.iter().map(|other| (*other).to_owned()).collect(),
        }
    }

    fn message(
        from: &str,
        client: Option<&str>,
        claimed: &[&str],
        marks: &[&str],
    ) -> BasicProperties {
        let mut headers = FieldTable::default();
        if let Some(client) = client {
            headers.insert(CLIENT.into(), AMQPValue::LongString(client.into()));
        }
        if !claimed.is_empty() {
            let names: Vec<_> = claimed.iter().map(|name| (*name).to_owned()).collect();
            headers.insert(CLAIMED.into(), array(&names));
        }
        for mark in marks {
            headers.insert((*mark).into(), AMQPValue::LongString("1".into()));
        }
        let properties = BasicProperties::default().with_headers(headers);
        if from.is_empty() {
            return properties;
        }
        properties.with_user_id(from.into())
    }

    /// The client, and what is claimed beyond it.
    fn told(trust: &Trust, properties: &BasicProperties) -> (String, Vec<String>) {
        let Speakers { client, claim } = trust.speakers(properties, false);
        (client, claim.map_or(Vec::new(), |claim| claim.names))
    }

    #[test]
    fn x_client_counts_only_from_trusted_logins() {
        let (own, both) = (trust("b", &[]), trust("b", &["a"]));
        for (from, client, claimed, marks, of_own, of_both) in [
            // No login names another client.
            ("p", None, &[][..], &[][..], "p", "p"),
            ("", None, &[], &[], "", ""),
            ("p", Some("c"), &[], &[], "p", "p"),
            ("p", Some("c"), &[], &[ATTEMPTS], "p", "p"),
            ("", Some("c"), &[], &[], "", ""),
            // A worker does, and a former one.
            ("b", Some("c"), &[], &RUNG, "c", "c"),
            ("b", Some("c"), &[], &[], "c", "c"),
            ("b", Some(""), &[], &RUNG, "", ""),
            ("b", None, &[], &[], "b", "b"),
            ("a", Some("c"), &[], &RUNG, "a: c", "c"),
            ("a", Some("c"), &[], &[REPLAYED], "a: c", "c"),
            ("a", Some(""), &[], &RUNG, "a: ", ""),
            ("a", Some("c"), &[], &[], "a", "c"),
            // A publisher's claim stays its own, whichever login passes it on.
            ("p", Some("c"), &[], &RUNG, "p: c", "p: c"),
            ("b", Some("p"), &["c"], &RUNG, "p: c", "p: c"),
            ("b", Some("a"), &["c"], &RUNG, "a: c", "c"),
            ("b", Some("a"), &["p", "c"], &RUNG, "a: p c", "p: c"),
            ("a", Some("p"), &["c"], &RUNG, "a: p c", "p: c"),
            ("p", Some("b"), &["a", "c"], &RUNG, "p: b a c", "p: b a c"),
            // A message without a login is not from a worker: a worker sets user_id.
            ("", Some("b"), &["c"], &RUNG, "", ""),
            ("", Some("c"), &[], &RUNG, "", ""),
        ] {
            for (trust, expected) in [(&own, of_own), (&both, of_both)] {
                let (client_told, rest) = told(trust, &message(from, client, claimed, marks));
                let shown = if rest.is_empty() {
                    client_told
                } else {
                    format!("{client_told}: {}", rest.join(" "))
                };
                assert_eq!(shown, expected, "{from} {client:?} {claimed:?} {marks:?}");
            }
        }
    }

    #[test]
    fn an_invalid_list_of_names_is_never_trusted() {
        let everybody = trust("b", &["a", "c"]);
        let many = vec!["a"; NAMES_MAX + 1];
        let properties = message("b", Some("a"), &many, &RUNG);
        assert!(everybody.speakers(&properties, false).claim.is_some());
        let mut properties = message("b", Some("a"), &[], &RUNG);
        let mut headers = properties.headers().clone().unwrap_or_default();
        headers.insert(CLAIMED.into(), AMQPValue::LongString("c".into()));
        properties = properties.with_headers(headers);
        assert!(everybody.speakers(&properties, false).claim.is_some());
    }

    #[test]
    fn x_first_attempt_at_counts_from_trusted_logins() {
        let since = |from| {
            let properties = message(from, Some("p"), &["c"], &RUNG);
            let mut headers = properties.headers().clone().unwrap_or_default();
            let time = AMQPValue::LongString("2026-01-02T03:04:05Z".into());
            headers.insert(UNTRUSTED_SINCE.into(), time);
            let speakers = trust("b", &[]).speakers(&properties.with_headers(headers), false);
            speakers.claim.expect("p is not trusted").since
        };
        assert!(since("b").is_some());
        assert_eq!(since("p"), None);
    }
}
