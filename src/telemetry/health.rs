//! Asks a running process of this machine whether it is ready: `GET /readyz` on its `telemetry.listen`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::NotReady;

/// Longest wait for an answer; whoever calls `revertd health` waits a second longer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Largest answer that is read, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// Asks the process that was told to listen on `address`. `Ok` if it is ready.
///
/// # Errors
/// Where it is not ready, does not answer, or is another program: the sentence that says so.
pub async fn health(address: SocketAddr) -> Result<(), NotReady> {
    let at = reachable(address);
    if at.port() == 0 {
        return Err("telemetry.listen leaves its port to the system; choose one".into());
    }
    timeout(TIMEOUT, ask(at))
        .await
        .unwrap_or_else(|_| Err(format!("{at} does not answer")))
}

/// An address that stands for all of the machine is reached at its loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(at: SocketAddr) -> Result<(), NotReady> {
    let failed = |error: &dyn std::fmt::Display| format!("{at}: {error}");
    let stream = TcpStream::connect(at)
        .await
        .map_err(|error| format!("no process serves telemetry on {at}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // Ends with the sender; its errors reach whoever waits for the answer.
    tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header(HOST, at.to_string())
        .body(String::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| failed(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| failed(&error))?.to_bytes();
    let said = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match (status, said["ready"].as_bool(), said["why"].as_str()) {
        (StatusCode::OK, Some(true), _) => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(false), Some(why)) => Err(why.to_owned()),
        _ => Err(format!(
            "{at} answers {status} to /readyz, which is no answer of revertd; see who listens there"
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
