//! Latency from request to event, at shares of the throughput of (c).

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::load::Load;
use crate::openloop::{Measured, Plan};
use crate::plot::{self, Line};
use crate::process::Worker;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::Bench;
use crate::stage::{Stage, urls};
use crate::table::{Table, number};

/// Seconds at the start of each load whose latencies are left out.
const WARM_UP: f64 = 3.0;

/// Measures at per cents of the throughput of the same run; if that has none, it measures the
/// throughput first. Each share runs for the given number of seconds.
pub async fn measure(
    bench: &Bench,
    throughput: Option<f64>,
    shares: &[u32],
    seconds: f64,
) -> Result<Section> {
    let throughput = match throughput {
        Some(rate) => rate,
        None => throughput_of(bench).await?,
    };
    let mut loads = Vec::new();
    let mut load = Load::good(0);
    for share in shares {
        let rate = throughput * f64::from(*share) / 100.0;
        load = load.next(whole(rate * (WARM_UP + seconds)));
        loads.push((*share, rate, load));
    }
    let stage = bench.stage(&[]).await?;
    let all = Load::good(load.first + load.requests - 1);
    stage.seed(all).await?;
    let mut worker = Worker::revertd(&stage.environment).await?;
    let mut measured = Vec::new();
    for (share, rate, load) in loads {
        eprintln!("latency at {share} %, {}/s", number(rate));
        stage.settle().await?;
        let result = at(&stage, load, rate).await;
        let figures = result.with_context(|| worker.tail())?;
        worker.must_run()?;
        measured.push((share, rate, figures));
    }
    worker.stop().await?;
    stage.check(all).await?;
    stage.clean().await?;
    Ok(section(throughput, seconds, &measured))
}

async fn throughput_of(bench: &Bench) -> Result<f64> {
    let load = Load::good(bench.requests);
    let case = Case::new("throughput", || bench.revertd(load, &[]));
    let runs = interleave(bench.rounds, &[case]).await?;
    Ok(runs[0].rate())
}

async fn at(stage: &Stage, load: Load, rate: f64) -> Result<Measured> {
    let plan = Plan {
        amqp: urls()?.1,
        exchange: stage.request_exchange(),
        reply_queue: stage.reply_queue(),
        load,
        rate,
        warm_up: whole(rate * WARM_UP),
    };
    tokio::task::spawn_blocking(move || plan.run()).await?
}

fn section(throughput: f64, seconds: f64, measured: &[(u32, f64, Measured)]) -> Section {
    let mut table = Table::new([
        "load",
        "requests/s",
        "events/s",
        "p50",
        "p99",
        "p99.9",
        "longest",
        "sent late, p99",
    ]);
    for (share, rate, figures) in measured {
        let of = |quantile| milliseconds(&figures.latency, quantile);
        let quantiles = [0.5, 0.99, 0.999, 1.0].map(|quantile| format!("{:.1} ms", of(quantile)));
        let lag = format!("{:.1} ms", milliseconds(&figures.lag, 0.99));
        let rates = [format!("{share} %"), number(*rate), number(figures.rate)];
        table.row(rates.into_iter().chain(quantiles).chain([lag]));
    }
    let mut section = Section::new("latency", "Latency, request to event", table);
    section.notes.push(format!(
        "Per cent of {} reverts/s, the median throughput of (c) in the same run; {:.0} s each, \
        after {WARM_UP:.0} s of warm-up.",
        number(throughput),
        seconds
    ));
    if let Some((_, _, half)) = measured.iter().find(|(share, ..)| *share == 50) {
        let p99 = milliseconds(&half.latency, 0.99);
        section
            .headlines
            .push(("p99 latency at half load", format!("{p99:.1} ms")));
    }
    if measured.len() > 1 {
        let line = |name, quantile| Line {
            name,
            points: measured
                .iter()
                .map(|(share, _, figures)| {
                    (f64::from(*share), milliseconds(&figures.latency, quantile))
                })
                .collect(),
        };
        let lines = [line("p50", 0.5), line("p99", 0.99), line("p99.9", 0.999)];
        let axes = ["load, per cent of the throughput", "latency in ms"];
        section.plot = plot::logarithmic("Request to event", axes, &lines)
            .ok()
            .map(|svg| ("latency.svg", svg));
    }
    section
}

pub fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    let micros = u32::try_from(histogram.value_at_quantile(quantile)).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// A positive number of requests as an integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a million at most"
)]
fn whole(requests: f64) -> u32 {
    requests.max(1.0) as u32
}
