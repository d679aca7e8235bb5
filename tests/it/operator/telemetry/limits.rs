//! Bounds of the telemetry port: large heads, and connections that hold files and memory.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

async fn connect_from(address: SocketAddr, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = (Ipv4Addr::new(127, 0, 1, from), 0).into();
    socket.bind(from).expect("a loopback address");
    socket.connect(address).await.expect("it listens")
}

/// The answer to these bytes, until the server closes the connection.
async fn answer(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect_from(address, 1).await;
    // It may close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn files(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
    files.expect("its files").count()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("a size").parse().expect("a number")
}

#[tokio::test]
async fn heads_and_connections_are_bounded() {
    let (env, mut worker) = TestEnv::with_worker_set(&[LISTEN]).await;
    let telemetry = Telemetry::of(&mut worker).await;
    telemetry.ready().await;
    let address = telemetry.address().parse().expect("an address");
    let pid = worker.pid();
    let (files_before, kib_before) = (files(pid), resident_kib(pid));
    let half = format!(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}",
        "x".repeat(300_000)
    );
    let mut crowd = Vec::new();
    // Fifty from each of ten addresses; each address gets six, and all together 64.
    for n in 0..500u16 {
        let [_, from] = (n % 10 + 1).to_be_bytes();
        let mut stream = connect_from(address, from).await;
        // As much as it takes.
        let _ = tokio::time::timeout(
            std::time::Duration::from_millis(5),
            stream.write_all(half.as_bytes()),
        )
        .await;
        crowd.push(stream);
    }
    let (open, kib) = (files(pid), resident_kib(pid));
    let (open, kib) = (
        open.saturating_sub(files_before),
        kib.saturating_sub(kib_before),
    );
    println!("beside 500 heads of 300 kB: {open} more files, {kib} KiB more");
    assert!(open <= 80, "{open} more files");
    assert!(kib < 16 * 1024, "{kib} KiB more");
    // Another address is answered beside them.
    assert_eq!(telemetry.get("/healthz").await.0, 200);
    drop(crowd);
    env.teardown().await;
}

#[tokio::test]
async fn an_invalid_http_head_is_refused() {
    let (env, mut worker) = TestEnv::with_worker_set(&[LISTEN]).await;
    let telemetry = Telemetry::of(&mut worker).await;
    let address = telemetry.address().parse().expect("an address");
    let large = "x".repeat(20_000);
    for (head, status) in [
        ("Host: x\r\n".to_owned(), "200"),
        (String::new(), "400"),
        ("Host: x\r\nHost: x\r\n".into(), "400"),
        ("Host: x\r\nExpect: 200-ok\r\n".into(), "417"),
        (format!("Host: x\r\nX: {large}\r\n"), "431"),
    ] {
        let request = format!("GET /healthz HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
        let told = answer(address, request.as_bytes()).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
    }
    env.teardown().await;
}
