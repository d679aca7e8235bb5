//! What HTTP/1.1 asks of a request's head, and hyper does not check. Pure.

use hyper::header::{EXPECT, HOST};
use hyper::{HeaderMap, Version};

/// How a head breaks the rules of HTTP/1.1 (RFC 9112 section 3.2, RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolFault {
    /// No header `Host`, or several: status 400.
    Host,
    /// An `Expect` other than `100-continue`: status 417.
    Expect,
}

impl ProtocolFault {
    /// What is wrong with a head; an older version of HTTP knows neither rule.
    #[must_use]
    pub fn of(version: Version, headers: &HeaderMap) -> Option<Self> {
        if version < Version::HTTP_11 {
            return None;
        }
        if headers.get_all(HOST).iter().count() != 1 {
            return Some(Self::Host);
        }
        let unknown = headers
            .get_all(EXPECT)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        unknown.then_some(Self::Expect)
    }
}

/// Whether the client waits with its body until it is asked for it.
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_host_and_no_unknown_expect() {
        let fault = |version, given: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, value.parse().expect("a value"));
            }
            ProtocolFault::of(version, &headers)
        };
        let host = ("host", "x");
        for (given, expected) in [
            (&[host][..], None),
            (&[("host", "")], None),
            (&[], Some(ProtocolFault::Host)),
            (&[host, host], Some(ProtocolFault::Host)),
            (&[host, ("expect", "100-Continue")], None),
            (&[host, ("expect", "200-ok")], Some(ProtocolFault::Expect)),
            (&[host, ("expect", "")], Some(ProtocolFault::Expect)),
        ] {
            assert_eq!(fault(Version::HTTP_11, given), expected, "{given:?}");
        }
        assert_eq!(fault(Version::HTTP_10, &[("expect", "x")]), None);
    }
}
