//! Time and memory of `revertd verify`, on a short and on a long ledger.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::deadline::{LONG, PATIENCE};
use crate::load::Load;
use crate::meter::Meter;
use crate::process::{Worker, revertd};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::stage::Stage;
use crate::table::{Table, costs, number};

pub async fn measure(bench: &Bench, entries: u32) -> Result<Section> {
    let sizes = [entries / 10, entries];
    let mut stages = Vec::new();
    for entries in sizes {
        eprintln!("writing {} entries", number(entries.into()));
        stages.push(written(bench, entries).await?);
    }
    let cases = sizes.iter().zip(&stages).map(|(entries, stage)| {
        let name = format!("{} entries", number((*entries).into()));
        Case::new(name, move || once(bench, stage, *entries))
    });
    let cases: Vec<_> = cases.collect();
    let runs = interleave(bench.rounds, &cases).await?;
    drop(cases);
    for stage in stages {
        stage.clean().await?;
    }
    let mut table = Table::new([
        "",
        "time",
        "entries/s",
        "CPU of verify",
        "database CPU",
        "peak memory",
    ]);
    for runs in &runs {
        let [own, _, database, memory] = costs(runs);
        let time = f64::from(runs.messages()) / runs.rate();
        let cells = [
            format!("{time:.0} s"),
            number(runs.rate()),
            own,
            database,
            memory,
        ];
        table.row(std::iter::once(runs.name.clone()).chain(cells));
    }
    let mut section = Section::new("verify", "Verify", table);
    section.notes.push(format!(
        "Half of the entries are usages, with their platform's legs; each is reverted, with its \
        outcome. CPU is by entry. Medians over the rounds ({}).",
        bench.rounds
    ));
    let time = f64::from(entries) / runs[1].rate();
    let time = format!("{time:.0} s, {:.0} MiB", runs[1].peak_mib());
    section.headlines.push(("verify, 10^7 entries", time));
    Ok(section)
}

/// A ledger with the given number of entries.
async fn written(bench: &Bench, entries: u32) -> Result<Stage> {
    let stage = bench.stage(&[]).await?;
    let accounts = Load::good(1).accounts;
    stage.seed_accounts(accounts).await?;
    stage.seed_reverted(entries / 4, accounts).await?;
    Ok(stage)
}

async fn once(bench: &Bench, stage: &Stage, entries: u32) -> Result<Figures> {
    let mut process = Worker::spawn(revertd(&stage.environment, "verify"))?;
    let meter = Meter::start(&bench.servers, &[process.id()])?;
    let (mut spent, mut peak_mib) = (meter.spent()?, 0.0);
    while process.must_run().is_ok() {
        // Both fail if the process ends before the next check.
        if let (Ok(now), Ok(peak)) = (meter.spent(), process.peak_mib()) {
            (spent, peak_mib) = (now, peak);
        }
        ensure!(spent.elapsed < LONG, "it does not end\n{}", process.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = process.ended(PATIENCE).await?;
    let expected = format!(
        "{} outcomes, {} legs of reverts: 0 violations",
        entries / 4,
        entries / 2
    );
    let output = process.output()?;
    ensure!(
        status.success() && output.contains(&expected),
        "{status}\n{}",
        process.tail()
    );
    Ok(Figures {
        messages: entries,
        spent,
        peak_mib,
    })
}
