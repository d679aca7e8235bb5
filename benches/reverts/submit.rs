//! Time of `revertd submit --file`, from its start to its summary.

use std::io::Write;

use anyhow::{Context, Result};

use crate::deadline::LONG;
use crate::load::{GROUP, Load, message_id};
use crate::meter::Meter;
use crate::process::{Worker, revertd, to_its_end};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::table::{COSTS, Table, costs, number, ratio};

pub async fn measure(bench: &Bench, lines: u32) -> Result<Section> {
    let load = Load {
        in_a_row: GROUP,
        ..Load::good(lines)
    };
    let case = |size: u32| {
        let name = format!("--group-size {size}");
        Case::new(name, move || submit(bench, load, size))
    };
    let all = interleave(bench.rounds, &[case(1), case(GROUP)]).await?;
    let header = ["", "start to summary", "requests/s", "to --group-size 1"];
    let mut table = Table::new(header.into_iter().chain(COSTS));
    for runs in &all {
        let seconds = f64::from(runs.messages()) / runs.rate();
        let cells = [
            format!("`{}`", runs.name),
            format!("{seconds:.1} s"),
            number(runs.rate()),
            ratio(runs.ratio_to(&all[0])),
        ];
        table.row(cells.into_iter().chain(costs(runs)));
    }
    let mut section = Section::new("submit", "A file of requests", table);
    section.notes.push(format!(
        "`revertd submit --file` with {} lines, of which {GROUP} in a row are on one account, and \
        one worker process. CPU and memory are the worker's, without those of `submit`. Medians \
        over the rounds ({}), ratios too: each is of two runs of one round.",
        number(lines.into()),
        bench.rounds
    ));
    let times = format!("{} times", ratio(all[1].ratio_to(&all[0])));
    section
        .headlines
        .push(("submit --file in groups of 100, to one by one", times));
    Ok(section)
}

/// Sends a file of the requests, in groups of `size`, to a worker that is ready.
async fn submit(bench: &Bench, load: Load, size: u32) -> Result<Figures> {
    let stage = bench.stage(&[]).await?;
    stage.seed(load).await?;
    let file = write(load)?;
    let worker = Worker::revertd(&stage.environment).await?;
    let mut command = revertd(&stage.environment, "submit");
    command.arg("--file").arg(file.path());
    command.args(["--group-size", &size.to_string()]);
    let meter = Meter::start(&bench.servers, &[worker.id()])?;
    let submitted = to_its_end(command, LONG).await;
    let spent = meter.spent()?;
    submitted.with_context(|| worker.tail())?;
    let peak_mib = worker.peak_mib()?;
    worker.stop().await?;
    stage.check(load).await?;
    stage.clean().await?;
    Ok(Figures {
        messages: load.requests,
        spent,
        peak_mib,
    })
}

/// A file with a JSON object for each request. Each has a `message_id`.
fn write(load: Load) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile()?;
    let mut lines = std::io::BufWriter::new(file.as_file());
    for number in load.numbers() {
        let (id, body) = (message_id(number), load.body(number));
        writeln!(lines, r#"{{"message_id":"{id}",{}"#, &body[1..])?;
    }
    lines.flush()?;
    drop(lines);
    Ok(file)
}
