//! The header `Authorization`, scheme Basic (RFC 7617). Pure.
//!
//! This module must not know the broker, which checks id and secret. Every fault of the header has
//! the answer of a wrong secret, so a client does not learn which fault it was.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::headers::only;
use crate::broker::Credentials;

/// The longest `user_id` that AMQP carries.
const ID_MAX_BYTES: usize = 255;

const SECRET_MAX_BYTES: usize = 4096;

/// RabbitMQ's built-in user, which may connect only from RabbitMQ's own machine. Over HTTP, every
/// client would connect from the gateway's machine.
const GUEST: &str = "guest";

/// Id and secret; `None` unless exactly one header carries both.
pub fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let given = only(headers, AUTHORIZATION)?;
    let (scheme, encoded) = split(given)?;
    if !scheme.eq_ignore_ascii_case(b"basic")
        || encoded.len() > (ID_MAX_BYTES + SECRET_MAX_BYTES + 1) * 2
    {
        return None;
    }
    // Full size from the start: a buffer that grows leaves copies of the secret in memory.
    let mut decoded = Zeroizing::new(vec![0; encoded.len()]);
    let length = STANDARD.decode_slice(encoded, &mut decoded).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded[..length])
        .ok()?
        .split_once(':')?;
    // The broker would misread a control character, above all NUL.
    let sound = !id.is_empty()
        && id != GUEST
        && id.len() <= ID_MAX_BYTES
        && secret.len() <= SECRET_MAX_BYTES
        && !id.chars().chain(secret.chars()).any(char::is_control);
    sound.then(|| Credentials {
        id: id.to_owned(),
        secret: Zeroizing::new(secret.to_owned()),
    })
}

/// The scheme and its value, without the spaces between them.
fn split(header: &HeaderValue) -> Option<(&[u8], &[u8])> {
    let bytes = header.as_bytes();
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], bytes[space..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(headers: &[&str]) -> Option<(String, String)> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(AUTHORIZATION, header.parse().expect("a header"));
        }
        credentials(&map).map(|found| (found.id, found.secret.to_string()))
    }

    fn basic(text: impl AsRef<[u8]>) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn the_id_ends_at_the_first_colon_and_is_utf_8() {
        for (text, id, secret) in [
            ("me:s", "me", "s"),
            ("me:", "me", ""),
            ("me:a:b", "me", "a:b"),
            ("mé:pässwörd 😀", "mé", "pässwörd 😀"),
        ] {
            let expected = Some((id.to_owned(), secret.to_owned()));
            assert_eq!(parsed(&[&basic(text)]), expected);
            let other = basic(text).replace("Basic ", "bASIC   ");
            assert_eq!(parsed(&[&other]), expected);
        }
        let (id, secret) = ("i".repeat(255), "s".repeat(4096));
        assert!(parsed(&[&basic(format!("{id}:{secret}"))]).is_some());
    }

    #[test]
    fn malformed_authorization_means_no_credentials() {
        let (id, secret) = ("i".repeat(256), "s".repeat(4097));
        let good = basic("me:s");
        for headers in [
            &[][..],
            &[""],
            &["Basic"],
            &["Basic "],
            &["Basic me:s"],
            &[&basic("guest:guest")],
            &["Bearer bWU6cw=="],
            &["Basic bWU6cw"],
            &["Basic bWU6cw==, Basic bWU6cw=="],
            &[good.as_str(), good.as_str()],
            &[&basic("me")],
            &[&basic(":s")],
            &[&basic("me\0you:s")],
            &[&basic("me:s\0")],
            &[&basic("me\r\n:s")],
            &[&basic("me:s\u{7f}")],
            &[&basic("me:s\u{85}")],
            &[&basic(b"me:\xff")],
            &[&basic(format!("{id}:s"))],
            &[&basic(format!("me:{secret}"))],
        ] {
            assert_eq!(parsed(headers), None, "{headers:?}");
        }
    }

    #[test]
    fn debug_output_of_credentials_hides_the_secret() {
        let mut map = HeaderMap::new();
        map.append(
            AUTHORIZATION,
            basic("me:hunter2").parse().expect("a header"),
        );
        let shown = format!("{:?}", credentials(&map).expect("sound"));
        assert!(
            shown.contains("me") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
