//! Whether servers can be reached at all: their names, and their ports.
//!
//! It must not know what they serve.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::common::check::Checks;

/// Longest wait for the answer to either question.
const PATIENCE: Duration = Duration::from_secs(5);

/// The words in which a server is spoken of.
#[derive(Clone, Copy, Debug)]
pub struct CheckIds {
    /// What names are looked up as.
    pub dns: &'static str,
    /// What ports are looked at as.
    pub tcp: &'static str,
    /// The key that holds the address.
    pub key: &'static str,
}

/// Looks up each host, and connects to its port. One of several may be missing. Returns whether any
/// can be reached.
pub async fn reach(words: CheckIds, servers: &[(String, u16)], checks: &mut Checks) -> bool {
    let mut named = Answers::default();
    let mut open = Answers::default();
    for (host, port) in servers {
        let at = format!("{host}:{port}");
        match within(lookup_host((host.as_str(), *port))).await {
            Ok(found) => {
                let mut found: Vec<_> = found.map(|address| address.ip().to_string()).collect();
                found.dedup();
                named.good.push(format!("{host} is {}", found.join(", ")));
            }
            Err(error) => {
                named.bad.push(format!("{host} has no address: {error}"));
                continue;
            }
        }
        match within(TcpStream::connect((host.as_str(), *port))).await {
            Ok(_) => open.good.push(format!("{at} accepts connections")),
            Err(error) => open.bad.push(format!("{at}: {error}")),
        }
    }
    let CheckIds { dns, tcp, key } = words;
    named.tell(
        dns,
        &format!("correct the host in {key}, or this machine's resolver"),
        checks,
    );
    if named.good.is_empty() {
        checks.skipped(tcp, "there is no address to connect to");
        return false;
    }
    let remedy = format!(
        "start the server there, have it listen on that address, open the firewall, or correct \
        host and port in {key}"
    );
    open.tell(tcp, &remedy, checks);
    !open.good.is_empty()
}

async fn within<T>(asking: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[derive(Default)]
struct Answers {
    good: Vec<String>,
    bad: Vec<String>,
}

impl Answers {
    fn tell(&self, id: &'static str, remedy: &str, checks: &mut Checks) {
        let all: Vec<_> = self.bad.iter().chain(&self.good).cloned().collect();
        let seen = all.join(", ");
        if self.bad.is_empty() {
            checks.ok(id, seen);
        } else if self.good.is_empty() {
            checks.error(id, seen, remedy);
        } else {
            checks.warning(id, seen, remedy);
        }
    }
}
