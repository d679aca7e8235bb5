//! `revertd gateway` as a process.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use super::http::{HttpConnection, HttpRequest, HttpResponse};
use super::{TestEnv, WorkerProcess};

/// A running `revertd gateway`.
pub struct GatewayProcess {
    pub process: WorkerProcess,
    pub address: SocketAddr,
}

impl TestEnv {
    /// Starts a gateway on a port of its own and waits until it listens.
    pub async fn start_gateway(&self) -> GatewayProcess {
        GatewayProcess::listening(self.spawn_gateway()).await
    }

    /// The same, and waits for nothing.
    pub fn spawn_gateway(&self) -> WorkerProcess {
        let mut command = self.command(&["gateway"]);
        if self.setting("GATEWAY__LISTEN").is_none() {
            command.env("REVERTD_GATEWAY__LISTEN", "127.0.0.1:0");
        }
        WorkerProcess::spawn(command)
    }

    /// Entries that revert a usage, of two legs each.
    pub async fn entries(&self, usage: Uuid) -> usize {
        self.reverts(usage).await.len() / 2
    }
}

impl GatewayProcess {
    /// A gateway that was spawned, once it listens.
    pub async fn listening(mut process: WorkerProcess) -> Self {
        process.logged(" listening").await;
        let log = process.log();
        let line = log.lines().find(|line| line.contains(" listening"));
        let line = line.expect("it was logged");
        let address = line
            .split("address=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let address = address
            .expect("the line names it")
            .parse()
            .expect("an address");
        Self { process, address }
    }

    /// Sends one request on a connection of its own and reads its answer.
    pub async fn send(&self, request: &HttpRequest) -> HttpResponse {
        let mut connection = self.connect().await;
        connection.write(&request.bytes()).await;
        connection.response().await
    }

    /// Opens a connection.
    pub async fn connect(&self) -> HttpConnection<TcpStream> {
        HttpConnection::over(TcpStream::connect(self.address).await.expect("it listens"))
    }

    /// The same, from another address of this machine.
    pub async fn connect_from(&self, address: Ipv4Addr) -> HttpConnection<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = (address, 0).into();
        socket.bind(from).expect("a loopback address");
        HttpConnection::over(socket.connect(self.address).await.expect("it listens"))
    }

    /// Sends one request from another address of this machine.
    pub async fn send_from(&self, address: Ipv4Addr, request: &HttpRequest) -> HttpResponse {
        let mut connection = self.connect_from(address).await;
        connection.write(&request.bytes()).await;
        connection.response().await
    }

    /// Asks it to stop, and waits.
    pub async fn stop(&mut self) -> i32 {
        self.process.stop().await.code().expect("no signal")
    }
}
