//! The table: the broker alone, the database alone, the program, one message a transaction, and Frontier's statements.

use anyhow::Result;

use crate::frontier::Frontier;
use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, Runs, interleave};
use crate::run::Bench;
use crate::table::{COSTS, Table, costs, number, rate, ratio};

/// How many times as long a request takes (d), about: its runs have so many fewer.
const SLOWER: u32 = 20;

/// Runs (a) to (d), and (e) where `frontier` says so; gives the throughput of (c) as well.
pub async fn measure(bench: &Bench, frontier: bool) -> Result<(Section, f64)> {
    let load = Load::good(bench.requests);
    let few = Load::good((bench.requests / SLOWER).max(1));
    let one = [("REVERTD_WORKER__BATCH_MAX", "1".to_owned())];
    let mut frontiers = Vec::new();
    if frontier {
        frontiers.push((Frontier::new(bench, 500, 1_000).await?, 33));
        frontiers.push((Frontier::new(bench, 50, 10_000).await?, 200));
    }
    let mut cases = vec![
        Case::new("(a) broker alone", || bench.broker_alone(load)),
        Case::new("(b) database alone", || bench.database_alone(load)),
        Case::new("(c) revertd", || bench.revertd(load, &[])),
        Case::new("(d) revertd, one message a transaction", || {
            bench.revertd(few, &one)
        }),
    ];
    let names = [
        "(e) Frontier's statements, 1,000 entries an account",
        "(e) Frontier's statements, 10,000 entries an account",
    ];
    for (name, (frontier, slower)) in names.into_iter().zip(&frontiers) {
        let reverts = bench.requests / slower;
        cases.push(Case::new(name, move || frontier.run(bench, reverts)));
    }
    let runs = interleave(bench.rounds, &cases).await?;
    drop(cases);
    for (frontier, _) in frontiers {
        frontier.clean().await?;
    }
    let throughput = runs[2].rate();
    Ok((section(bench, &runs), throughput))
}

fn section(bench: &Bench, runs: &[Runs]) -> Section {
    let ours = &runs[2];
    let header = ["", "reverts/s", "from, to", "(c) to it"];
    let mut table = Table::new(header.into_iter().chain(COSTS));
    for runs in runs {
        let ratio = ratio(ours.ratio_to(runs));
        let name = [runs.name.clone()];
        table.row(
            name.into_iter()
                .chain(rate(runs))
                .chain([ratio])
                .chain(costs(runs)),
        );
    }
    let mut section = Section::new("table", "Throughput", table);
    section.notes.push(format!(
        "{} requests in runs of (a) to (c); medians over the rounds ({}), ratios too: each is of two runs of one round.",
        number(f64::from(bench.requests)),
        bench.rounds
    ));
    let times = |to: usize| format!("{} times", ratio(ours.ratio_to(&runs[to])));
    let percent = format!("{:.0} %", 100.0 * ours.ratio_to(&runs[0]));
    section.headlines = vec![
        ("reverts a second", number(ours.rate())),
        ("to one message a transaction", times(3)),
        ("to the broker alone", percent),
    ];
    if runs.len() > 4 {
        section.headlines.push((
            "to Frontier's statements, 1,000 entries an account",
            times(4),
        ));
    }
    let [worker, _, _, memory] = costs(ours);
    section.headlines.extend([
        ("worker CPU a revert", worker),
        ("peak memory of the worker", memory),
    ]);
    section
}
