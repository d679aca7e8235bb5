//! Sends requests to the gateway over connections that stay open, and measures their latencies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::deadline::{PATIENCE, within};
use crate::load::{Load, message_id};

/// Largest latency that the histogram holds, in microseconds.
const LONGEST: u64 = 600_000_000;

/// The gateway, and the client that sends the requests.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Base64 of client id and secret.
    pub credentials: String,
}

/// Sends all requests of a load over `connections` connections; each connection sends its next
/// request as soon as the last is answered. Returns the latencies in microseconds.
pub async fn closed(target: &Target, load: Load, connections: u32) -> Result<Histogram<u64>> {
    let next = Arc::new(AtomicU32::new(load.numbers().start));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (target, next) = (target.clone(), next.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(&target).await?;
            let mut latency = histogram()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.numbers().end {
                    return Ok(latency);
                }
                let began = Instant::now();
                client.ask(load, number).await?;
                record(&mut latency, began.elapsed());
            }
        });
    }
    together(tasks).await
}

/// Sends the requests at a fixed rate, over the connections in turn. Each request has a due time,
/// and its latency counts from then; the latencies of the first `warm_up` requests are left out.
pub async fn open(
    target: &Target,
    load: Load,
    rate: f64,
    connections: u32,
    warm_up: u32,
) -> Result<Histogram<u64>> {
    let start = Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for turn in 0..connections {
        let target = target.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(&target).await?;
            let mut latency = histogram()?;
            for index in (turn..load.requests).step_by(connections as usize) {
                let due = start + Duration::from_secs_f64(f64::from(index) / rate);
                sleep_until(due.into()).await;
                client.ask(load, load.numbers().start + index).await?;
                if index >= warm_up {
                    record(&mut latency, due.elapsed());
                }
            }
            Ok(latency)
        });
    }
    together(tasks).await
}

async fn together(mut tasks: JoinSet<Result<Histogram<u64>>>) -> Result<Histogram<u64>> {
    let mut all = histogram()?;
    while let Some(done) = tasks.join_next().await {
        all.add(done??)?;
    }
    Ok(all)
}

struct Client {
    stream: TcpStream,
    credentials: String,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(target: &Target) -> Result<Self> {
        let stream = within(PATIENCE, "the gateway", TcpStream::connect(target.address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            credentials: target.credentials.clone(),
            answer: Vec::new(),
        })
    }

    /// Requests a revert, which must succeed.
    async fn ask(&mut self, load: Load, number: u32) -> Result<()> {
        let (body, credentials) = (load.body(number), &self.credentials);
        let request = format!(
            "POST /v1beta1/organizations/billing/usages/revert HTTP/1.1\r\nHost: \
            gateway\r\nAuthorization: Basic {credentials}\r\nContent-Type: \
            application/json\r\nAccept: application/json\r\nIdempotency-Key: \
            {}\r\nContent-Length: {}\r\n\r\n{body}",
            message_id(number),
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            let read = within(
                PATIENCE,
                "an answer",
                self.stream.read_buf(&mut self.answer),
            )
            .await?;
            ensure!(read > 0, "the gateway closed the connection");
            if is_whole(&self.answer)? {
                break;
            }
        }
        if !self.answer.starts_with(b"HTTP/1.1 200 ") {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|at| at == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .context("a length")?;
    Ok(answer.len() >= end + 4 + length.parse::<usize>()?)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
}
