//! The cost of telemetry: metrics that a client scrapes, and spans that a collector receives.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::shapes::compare;
use crate::table::number;

/// How often the metrics are scraped.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Which telemetry is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Shown {
    Nothing,
    Metrics,
    Traces,
}

pub async fn measure(bench: &Bench) -> Result<Section> {
    let plain = Load::good(bench.requests);
    let load = |sampled_every| Load {
        traced: true,
        sampled_every,
        ..plain
    };
    let case = |name: &str, load, shown| Case::new(name, move || run(bench, load, shown));
    let cases = [
        case("neither", load(1), Shown::Nothing),
        case("metrics, read every second", load(1), Shown::Metrics),
        case("and spans, no request sampled", load(0), Shown::Traces),
        case(
            "and spans, one request in 100 sampled",
            load(100),
            Shown::Traces,
        ),
        case("and spans, every request sampled", load(1), Shown::Traces),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    let mut section = Section::new("telemetry", "Metrics and traces", compare(&runs, 0));
    section.notes.push(format!(
        "{} requests each, all of which bear a `traceparent`; the spans go to a collector on the \
        same machine, which drops them. Of a batch, at most 32 requests have a span of their own. \
        Medians over the rounds ({}), ratios too: each is of two runs of one round.",
        number(bench.requests.into()),
        bench.rounds
    ));
    let percent = 100.0 * runs[4].ratio_to(&runs[0]);
    section.headlines.push((
        "with metrics and traces, every request sampled, to without",
        format!("{percent:.0} %"),
    ));
    Ok(section)
}

async fn run(bench: &Bench, load: Load, shown: Shown) -> Result<Figures> {
    let mut settings = Vec::new();
    let mut beside = Vec::new();
    if shown >= Shown::Metrics {
        let address = free_address().await?;
        settings.push(("REVERTD_TELEMETRY__LISTEN", address.clone()));
        beside.push(AbortOnDropHandle::new(tokio::spawn(scrape(address))));
    }
    if shown >= Shown::Traces {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        settings.push(("REVERTD_TELEMETRY__OTLP_ENDPOINT", endpoint));
        let collector = async {
            let router = Router::new().route("/v1/traces", post(|_: Bytes| async {}));
            // The task ends with the run.
            let _ = axum::serve(listener, router).await;
        };
        beside.push(AbortOnDropHandle::new(tokio::spawn(collector)));
    }
    let figures = bench.revertd(load, &settings).await;
    drop(beside);
    figures
}

/// A free address for a worker that is about to start.
async fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    Ok(listener.local_addr()?.to_string())
}

/// Scrapes the metrics as Prometheus does, as soon as the worker serves them.
async fn scrape(address: String) {
    loop {
        let _ = page(&address).await;
        tokio::time::sleep(SCRAPE_EVERY).await;
    }
}

async fn page(address: &str) -> Result<usize> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.context("a page")
}
