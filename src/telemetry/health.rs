//! Client of `GET /readyz`: asks a process on this machine, at its `telemetry.listen`, whether it
//! is ready.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::endpoint::NotReady;
use crate::common::http_client::{self, HttpError, HttpLimits, HttpServer, Request, StatusCode};

/// The limits of the question. A caller of `revertd health` should wait a second longer.
const LIMITS: HttpLimits = HttpLimits {
    time: Duration::from_secs(4),
    body_bytes: 64 << 10,
};

/// Asks the process whose `telemetry.listen` is `address`. Returns `Ok` if it is ready.
///
/// # Errors
/// If the process is not ready, does not answer, or is another program. The error is the sentence
/// to show.
pub async fn health(address: SocketAddr) -> Result<(), NotReady> {
    let at = reachable(address);
    if at.port() == 0 {
        return Err("telemetry.listen has port 0, so its port is unknown; set a fixed port".into());
    }
    ask(at).await
}

/// The address to connect to: the loopback address if `listen` is a wildcard address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(at: SocketAddr) -> Result<(), NotReady> {
    let (host, authority) = (at.ip().to_string(), at.to_string());
    let server = HttpServer {
        host: &host,
        port: at.port(),
        authority: &authority,
        tls: None,
    };
    let request = Request::get("/readyz").body(Bytes::new());
    let request = request.map_err(|error| format!("{at}: {error}"))?;
    let answer = http_client::send(server, request, LIMITS).await;
    let answer = answer.map_err(|error| match error {
        HttpError::Connect(error) => format!("no process serves telemetry on {at}: {error}"),
        HttpError::Silent => format!("{at} does not answer"),
        error => format!("{at}: {error}"),
    })?;
    let status = answer.status();
    let said = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    match (status, said["ready"].as_bool(), said["why"].as_str()) {
        (StatusCode::OK, Some(true), _) => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(false), Some(why)) => Err(why.to_owned()),
        _ => Err(format!(
            "{at} answered {status} to /readyz, which is not an answer of revertd; find the \
            process that listens there"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_asks_loopback_for_an_unspecified_address() {
        for (listen, at) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("192.0.2.7:9464", "192.0.2.7:9464"),
            ("[2001:db8::7]:9464", "[2001:db8::7]:9464"),
        ] {
            let listen: SocketAddr = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), at);
        }
    }
}
