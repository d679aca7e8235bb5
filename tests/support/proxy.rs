//! A TCP proxy between a worker and one of its servers, for network faults: connections that are
//! refused, cut, silent, half open, late or slow. Everything can be switched while connections are
//! open, and the bytes are counted.
//!
//! It runs on a thread of its own, so that a test may block without stopping the traffic.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::{Builder, Runtime};

use super::{TestEnv, with_database};

mod connection;
mod faults;
mod postgres;

pub use faults::{Conditions, Direction, Ending, Way};

use connection::ProxiedConnection;

/// One connection is to end after so many of its bytes.
#[derive(Clone, Copy, Debug)]
struct Cut {
    direction: Direction,
    after_bytes: u64,
    ending: Ending,
}

/// Answers of PostgreSQL to the statement that applies a batch, which are to be lost.
#[derive(Clone, Copy, Debug)]
struct Losses {
    every: u64,
    ending: Ending,
}

/// A listener in front of one server; gone, with its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    server: String,
    speaks_postgres: bool,
    refusing: AtomicBool,
    refused: AtomicU64,
    for_new: Mutex<Conditions>,
    cut: Mutex<Option<Cut>>,
    cuts: AtomicU64,
    losses: Mutex<Option<Losses>>,
    applied: AtomicU64,
    lost: AtomicU64,
    connections: Mutex<Vec<Arc<ProxiedConnection>>>,
}

impl Proxy {
    /// A proxy in front of `server`, an address such as `127.0.0.1:5672`.
    pub fn to(server: &str) -> Self {
        Self::start(server, false)
    }

    /// The same in front of a PostgreSQL, whose messages it reads on their way.
    pub fn to_postgres(server: &str) -> Self {
        Self::start(server, true)
    }

    fn start(server: &str, speaks_postgres: bool) -> Self {
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            speaks_postgres,
            refusing: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            for_new: Mutex::default(),
            cut: Mutex::default(),
            cuts: AtomicU64::new(0),
            losses: Mutex::default(),
            applied: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        // Held open until the end, so that no other process gets the port.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("bound");
        let context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("bound");
        drop(context);
        runtime.spawn(connection::accept(listener, shared.clone()));
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// `url` with the proxy in place of its host and port.
    pub fn instead_of(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).expect("the tests need addresses as URLs");
        url.set_host(Some("127.0.0.1")).expect("a URL with a host");
        url.set_port(Some(self.address.port()))
            .expect("a URL with a host");
        url.to_string()
    }

    /// Sets the conditions of every connection, open or to come.
    pub fn set(&self, conditions: Conditions) {
        self.set_new(conditions);
        self.set_open(conditions);
    }

    /// Sets the conditions of connections to come.
    pub fn set_new(&self, conditions: Conditions) {
        *lock(&self.shared.for_new) = conditions;
    }

    /// Sets the conditions of the connections that are open.
    pub fn set_open(&self, conditions: Conditions) {
        for connection in lock(&self.shared.connections).iter() {
            connection.conditions.send_replace(conditions);
        }
    }

    /// Resets every new connection at once, or takes new ones again.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Ends every open connection.
    pub fn end(&self, ending: Ending) {
        for connection in lock(&self.shared.connections).iter() {
            connection.end(ending);
        }
    }

    /// Ends the first connection that carries its `after_bytes`-th byte in `direction`, right after
    /// that byte; it alone, once.
    pub fn end_after(&self, direction: Direction, after_bytes: u64, ending: Ending) {
        *lock(&self.shared.cut) = Some(Cut {
            direction,
            after_bytes,
            ending,
        });
    }

    /// Loses the answer to every `every`-th batch that PostgreSQL committed, and ends the
    /// connection.
    pub fn lose_commits(&self, every: u64) {
        let ending = Ending::Reset;
        *lock(&self.shared.losses) = Some(Losses { every, ending });
    }

    /// From here on everything passes, and new connections are taken. Connections that were silent
    /// or forgotten stay so.
    pub fn heal(&self) {
        self.refuse(false);
        *lock(&self.shared.cut) = None;
        *lock(&self.shared.losses) = None;
        self.set_new(Conditions::default());
    }

    /// Connections so far, without those that were refused.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// Connections that were refused.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Connections that [`Proxy::end_after`] ended.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Answers that were lost though the statement had succeeded.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Bytes that passed in `direction`, of all connections.
    pub fn bytes(&self, direction: Direction) -> u64 {
        let connections = lock(&self.shared.connections);
        connections
            .iter()
            .map(|connection| connection.carried(direction))
            .sum()
    }

    /// The most bytes that one connection passed in `direction`.
    pub fn most_bytes(&self, direction: Direction) -> u64 {
        let connections = lock(&self.shared.connections);
        let each = connections
            .iter()
            .map(|connection| connection.carried(direction));
        each.max().unwrap_or_default()
    }

    /// Statements that PostgreSQL was asked to prepare, for each connection in the order of their
    /// coming.
    pub fn parses(&self) -> Vec<u64> {
        let connections = lock(&self.shared.connections);
        connections
            .iter()
            .map(|connection| connection.parses())
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped where it stands it would wait for its tasks, which a test's own runtime
            // forbids.
            runtime.shutdown_background();
        }
    }
}

impl TestEnv {
    /// Puts a proxy between the workers started from here on and the database; the test itself goes
    /// past it.
    pub fn proxy_database(&mut self) -> Proxy {
        let url = with_database(&self.servers.database, &self.database);
        let proxy = Proxy::to_postgres(&server_of(&url, 5432));
        self.set("DATABASE__URL", &proxy.instead_of(&url));
        proxy
    }

    /// The same between the workers and the broker.
    pub fn proxy_amqp(&mut self) -> Proxy {
        let proxy = Proxy::to(&server_of(&self.servers.amqp, 5672));
        self.set("AMQP__URL", &proxy.instead_of(&self.servers.amqp));
        proxy
    }
}

fn server_of(url: &str, default_port: u16) -> String {
    let url = url::Url::parse(url).expect("the tests need addresses as URLs");
    let host = url.host_str().expect("a URL with a host");
    format!("{host}:{}", url.port().unwrap_or(default_port))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}
