//! The operation over HTTP: throughput, and latency at a fixed rate.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use percent_encoding::percent_decode_str;

use crate::http::{self, Target};
use crate::latency::milliseconds;
use crate::load::Load;
use crate::meter::Meter;
use crate::process::{Worker, revertd};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::shapes::compare;
use crate::stage::{Stage, urls};
use crate::table::number;

/// Connections, on each of which one request waits for its answer.
const CONNECTIONS: u32 = 256;

/// Requests a second during the latency measurement. It lasts `SECONDS`, after `WARM_UP` seconds.
const RATE: u32 = 500;
const SECONDS: u32 = 20;
const WARM_UP: u32 = 3;

/// About how many times as long a request takes over HTTP.
const SLOWER: u32 = 4;

pub async fn measure(bench: &Bench) -> Result<Section> {
    let load = |requests| Load {
        named: true,
        ..Load::good(requests)
    };
    let (all, fewer) = (load(bench.requests), load(bench.requests / SLOWER));
    let cases = [
        Case::new("over AMQP", || async move {
            let stage = stage(bench, all).await?;
            let figures = bench.work_off(&stage, all, 1).await?;
            stage.clean().await?;
            Ok(figures)
        }),
        Case::new("over HTTP", || throughput(bench, fewer)),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    eprintln!("latency at {RATE}/s");
    let latency = latency(bench, load(RATE * (WARM_UP + SECONDS))).await?;
    let mut section = Section::new("gateway", "Over HTTP", compare(&runs, 0));
    section.notes.push(format!(
        "{CONNECTIONS} connections, on each of which the next request follows the answer; \
        gateway, worker, servers and clients share the machine. Worker CPU and memory are those \
        of worker and gateway together. Medians over the rounds ({}).",
        bench.rounds
    ));
    let of = |quantile| format!("{:.1} ms", milliseconds(&latency, quantile));
    let [half, p99, p999, longest] = [0.5, 0.99, 0.999, 1.0].map(of);
    section.notes.push(format!(
        "At {RATE} requests a second, for {SECONDS} s after {WARM_UP} s of warm-up, from due to \
        answered: p50 {half}, p99 {p99}, p99.9 {p999}, longest {longest}."
    ));
    section
        .headlines
        .push(("requests a second over HTTP", number(runs[1].rate())));
    section
        .headlines
        .push(("p99 latency over HTTP at 500 requests a second", p99));
    Ok(section)
}

/// A stage whose publisher has a grant for every org, with a usage for each request.
async fn stage(bench: &Bench, load: Load) -> Result<Stage> {
    let settings = [
        ("REVERTD_AUTHORIZATION__MODE", "grants".to_owned()),
        ("REVERTD_GATEWAY__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let stage = bench.stage(&settings).await?;
    stage.seed(load).await?;
    let grant = format!(
        "INSERT INTO revertd.grants (client, granted_by) VALUES ('{}', 'bench')",
        stage.login()
    );
    stage.long(&grant).await?;
    Ok(stage)
}

/// A worker and a gateway.
struct Pair {
    worker: Worker,
    gateway: Worker,
    target: Target,
}

impl Pair {
    async fn start(stage: &Stage) -> Result<Self> {
        let worker = Worker::revertd(&stage.environment).await?;
        let mut gateway = Worker::spawn(revertd(&stage.environment, "gateway"))?;
        gateway.says("\"message\":\"listening").await?;
        let output = gateway.output()?;
        let address = output
            .split("\"address\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .context("the gateway's address")?;
        let amqp = url::Url::parse(&urls()?.1)?;
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
        let secret = decoded(amqp.password().unwrap_or_default());
        let credentials = format!("{}:{secret}", decoded(amqp.username()));
        Ok(Self {
            target: Target {
                address: address.parse()?,
                credentials: STANDARD.encode(credentials),
            },
            worker,
            gateway,
        })
    }

    async fn stop(self) -> Result<()> {
        self.gateway.stop().await?;
        self.worker.stop().await
    }
}

async fn throughput(bench: &Bench, load: Load) -> Result<Figures> {
    let stage = stage(bench, load).await?;
    let pair = Pair::start(&stage).await?;
    let pids = [pair.worker.id(), pair.gateway.id()];
    let meter = Meter::start(&bench.servers, &pids)?;
    let asked = http::closed(&pair.target, load, CONNECTIONS).await;
    asked.with_context(|| pair.gateway.tail())?;
    let spent = meter.spent()?;
    let peak_mib = pair.worker.peak_mib()? + pair.gateway.peak_mib()?;
    pair.stop().await?;
    stage.check(load).await?;
    stage.clean().await?;
    Ok(Figures {
        messages: load.requests,
        spent,
        peak_mib,
    })
}

async fn latency(bench: &Bench, load: Load) -> Result<Histogram<u64>> {
    let stage = stage(bench, load).await?;
    let pair = Pair::start(&stage).await?;
    let asked = http::open(
        &pair.target,
        load,
        f64::from(RATE),
        CONNECTIONS,
        RATE * WARM_UP,
    );
    let latency = asked.await.with_context(|| pair.gateway.tail())?;
    pair.stop().await?;
    stage.check(load).await?;
    stage.clean().await?;
    Ok(latency)
}
