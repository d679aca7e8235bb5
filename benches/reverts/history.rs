//! Throughput with a long history: the reverted usages are the newest rows of the ledger.

use std::cell::Cell;

use anyhow::Result;

use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::shapes::compare;
use crate::stage::Stage;

const SHORT: u32 = 10_000;

pub async fn measure(bench: &Bench, rows: u32) -> Result<Section> {
    let load = Load::good(bench.requests);
    let names =
        [SHORT, rows].map(|rows| format!("{} rows before", crate::table::number(rows.into())));
    eprintln!("writing {}", names[1]);
    let long = History::new(bench, rows, load).await?;
    let [first, second] = names;
    let cases = [
        Case::new(first, || async move {
            let short = History::new(bench, SHORT, load).await?;
            let figures = short.run(bench).await?;
            short.stage.clean().await?;
            Ok(figures)
        }),
        Case::new(second, || long.run(bench)),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    drop(cases);
    long.stage.clean().await?;
    let mut section = Section::new("history", "A long history", compare(&runs, 0));
    section.notes.push(format!(
        "Rows of other usages of the same 1,000 accounts, beside those of the requests. The long \
        history is written once, with its indexes after its rows, by a session with \
        `maintenance_work_mem` of 512 MB; the servers are as they come. Medians over the rounds \
        ({}).",
        bench.rounds
    ));
    let percent = 100.0 * runs[1].ratio_to(&runs[0]);
    section
        .headlines
        .push(("10^7 rows of history, to 10^4", format!("{percent:.0} %")));
    Ok(section)
}

/// A stage with rows of other usages, which no request names.
struct History {
    stage: Stage,
    next: Cell<Load>,
}

impl History {
    async fn new(bench: &Bench, rows: u32, load: Load) -> Result<Self> {
        let stage = bench.stage(&[]).await?;
        stage.seed_accounts(load.accounts).await?;
        stage.seed_history(rows, load.accounts).await?;
        Ok(Self {
            stage,
            next: Cell::new(load),
        })
    }

    async fn run(&self, bench: &Bench) -> Result<Figures> {
        let load = self.next.get();
        self.next.set(load.next(load.requests));
        self.stage.seed_usages(load).await?;
        bench.work_off(&self.stage, load, 1).await
    }
}
