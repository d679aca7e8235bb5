//! Throughput of three processes on a full queue, compared with one process in the same round.

use anyhow::Result;

use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::Bench;
use crate::shapes::compare;
use crate::table::{number, ratio};

pub async fn measure(bench: &Bench) -> Result<Section> {
    let load = Load::good(bench.requests);
    let cases = [
        Case::new("1 process", || bench.fleet(load, &[], 1)),
        Case::new("3 processes", || bench.fleet(load, &[], 3)),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    let mut section = Section::new("processes", "Several processes", compare(&runs, 0));
    section.notes.push(format!(
        "{} requests each; medians over the rounds ({}), ratios too: each is of two runs of one \
        round. Worker CPU is that of all processes, memory that of the largest.",
        number(f64::from(load.messages())),
        bench.rounds
    ));
    let three = ratio(runs[1].ratio_to(&runs[0]));
    section
        .headlines
        .push(("three processes, to one process", three));
    Ok(section)
}
