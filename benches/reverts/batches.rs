//! Throughput against the size of batches.

use anyhow::Result;

use crate::load::Load;
use crate::plot::{self, Line};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::Bench;
use crate::shapes::compare;

/// Batch sizes, and about how many times as long a request takes in batches of each size.
const SIZES: [(u32, u32); 6] = [(1, 20), (5, 5), (20, 2), (100, 1), (250, 1), (500, 1)];

pub async fn measure(bench: &Bench) -> Result<Section> {
    let cases = SIZES.map(|(size, slower)| {
        let load = Load::good((bench.requests / slower).max(1));
        let settings = [("REVERTD_WORKER__BATCH_MAX", size.to_string())];
        Case::new(format!("batches of {size}"), move || {
            let settings = settings.clone();
            async move { bench.revertd(load, &settings).await }
        })
    });
    let runs = interleave(bench.rounds, &cases).await?;
    let last = runs.len() - 1;
    let mut section = Section::new("batches", "Sizes of batches", compare(&runs, last));
    section.notes.push(format!(
        "Of `worker.batch_max`, with a prefetch of twice that; the plain case is the default, \
        500. Medians over the rounds ({}).",
        bench.rounds
    ));
    let sizes = SIZES.iter().map(|(size, _)| f64::from(*size));
    let line = Line {
        name: "reverts a second",
        points: sizes
            .zip(runs.iter().map(crate::rounds::Runs::rate))
            .collect(),
    };
    let axes = [
        "requests in a batch, at most (worker.batch_max)",
        "reverts a second",
    ];
    let svg = plot::over_powers("Throughput against the size of batches", axes, &[line])?;
    section.plot = Some(("batches.svg", svg));
    Ok(section)
}
