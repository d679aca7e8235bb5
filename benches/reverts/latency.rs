//! Latency from request to event, at shares of the sustained rate.

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::load::Load;
use crate::openloop::Measured;
use crate::plot::{self, Line};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::Bench;
use crate::sustained::{OpenLoop, WARM_UP};
use crate::table::{Table, number};

/// A try of the search for the sustained rate takes this part of the time of a load.
const PROBE: f64 = 1.0 / 3.0;

/// The rates that the loads are shares of.
struct Rates {
    /// The throughput of (c).
    throughput: f64,
    sustained: f64,
    /// The lowest rate that was found not to be sustained.
    higher: f64,
}

/// Finds the sustained rate, and measures at per cents of it. The search ends at the throughput of
/// the same run; if that has none, it measures the throughput first. Each share runs for the given
/// number of seconds.
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
    let mut open_loop = OpenLoop::start(bench).await?;
    let (sustained, higher) = open_loop.sustained(throughput, PROBE * seconds).await?;
    let mut measured = Vec::new();
    for share in shares {
        let rate = sustained * f64::from(*share) / 100.0;
        eprintln!("latency at {share} %, {}/s", number(rate));
        let figures = open_loop.at(rate, seconds).await?;
        measured.push((*share, rate, figures));
    }
    open_loop.finish().await?;
    let rates = Rates {
        throughput,
        sustained,
        higher,
    };
    Ok(section(&rates, seconds, &measured))
}

async fn throughput_of(bench: &Bench) -> Result<f64> {
    let load = Load::good(bench.requests);
    let case = Case::new("throughput", || bench.revertd(load, &[]));
    let runs = interleave(bench.rounds, &[case]).await?;
    Ok(runs[0].rate())
}

fn section(rates: &Rates, seconds: f64, measured: &[(u32, f64, Measured)]) -> Section {
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
        "Per cent of {} requests/s, the sustained rate, which is {:.0} % of the {} reverts/s of \
        (c) in the same run; at {} requests/s the queue grew. {seconds:.0} s each, after \
        {WARM_UP:.0} s of warm-up.",
        number(rates.sustained),
        100.0 * rates.sustained / rates.throughput,
        number(rates.throughput),
        number(rates.higher)
    ));
    section.headlines.push((
        "sustained open loop, requests a second",
        number(rates.sustained),
    ));
    for (part, what, quantile) in [
        (10, "p50 latency at a tenth of it", 0.5),
        (50, "p99 latency at half of it", 0.99),
    ] {
        if let Some((.., figures)) = measured.iter().find(|(share, ..)| *share == part) {
            let time = milliseconds(&figures.latency, quantile);
            section.headlines.push((what, format!("{time:.1} ms")));
        }
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
        let axes = ["load, per cent of the sustained rate", "latency in ms"];
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
