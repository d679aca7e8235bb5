//! The table of contenders: the broker alone, the database alone, revertd, revertd with one message
//! a transaction, Frontier's statements, and revertd with groups.

use anyhow::Result;

use crate::frontier::Frontier;
use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, Runs, interleave};
use crate::run::Bench;
use crate::table::{COSTS, Table, costs, number, rate, ratio};

const BROKER: &str = "(a) broker alone";
const DATABASE: &str = "(b) database alone";
pub const REVERTD: &str = "(c) revertd";
const ONE: &str = "(d) revertd, one message a transaction";
const FRONTIER: [&str; 2] = [
    "(e) Frontier's statements, 1,000 entries an account",
    "(e) Frontier's statements, 10,000 entries an account",
];

pub const GROUPS: &str = "(g) revertd, groups of 100";

/// About how many times as long a request takes in (d); its runs have this many times fewer
/// requests.
const SLOWER: u32 = 20;

/// About how many times as many requests groups take in the same time.
pub const FASTER: u32 = 2;

/// Runs the given contenders, or all of them; also returns the throughput of (c).
pub async fn measure(bench: &Bench, only: &[char]) -> Result<(Section, Option<f64>)> {
    let wanted = |letter| only.is_empty() || only.contains(&letter);
    let load = Load::good(bench.requests);
    let few = Load::good((bench.requests / SLOWER).max(1));
    let one = [("REVERTD_WORKER__BATCH_MAX", "1".to_owned())];
    let mut frontiers = Vec::new();
    if wanted('e') {
        eprintln!("writing the accounts of (e)");
        frontiers.push((Frontier::new(bench, 500, 1_000).await?, FRONTIER[0], 33));
        frontiers.push((Frontier::new(bench, 50, 10_000).await?, FRONTIER[1], 200));
    }
    let mut cases = Vec::new();
    if wanted('a') {
        cases.push(Case::new(BROKER, || bench.broker_alone(load)));
    }
    if wanted('b') {
        cases.push(Case::new(DATABASE, || bench.database_alone(load)));
    }
    if wanted('c') {
        cases.push(Case::new(REVERTD, || bench.revertd(load, &[])));
    }
    if wanted('d') {
        cases.push(Case::new(ONE, || bench.revertd(few, &one)));
    }
    for (frontier, name, slower) in &frontiers {
        let reverts = bench.requests / slower;
        cases.push(Case::new(*name, move || frontier.run(bench, reverts)));
    }
    if wanted('g') {
        let groups = Load::groups(FASTER * bench.requests);
        cases.push(Case::new(GROUPS, move || bench.revertd(groups, &[])));
    }
    let runs = interleave(bench.rounds, &cases).await?;
    drop(cases);
    for (frontier, ..) in frontiers {
        frontier.clean().await?;
    }
    let throughput = find(&runs, REVERTD).map(Runs::rate);
    Ok((section(bench, &runs), throughput))
}

fn find<'a>(runs: &'a [Runs], name: &str) -> Option<&'a Runs> {
    runs.iter().find(|runs| runs.name == name)
}

/// The rates and costs of all runs, with the ratios of (c) and (g) to each.
pub fn ratios(all: &[Runs]) -> Table {
    let header = ["", "reverts/s", "from, to", "(c) to it", "(g) to it"];
    let mut table = Table::new(header.into_iter().chain(COSTS));
    let ours = [find(all, REVERTD), find(all, GROUPS)];
    for runs in all {
        let to = |ours: Option<&Runs>| match ours {
            Some(ours) => ratio(ours.ratio_to(runs)),
            None => "-".to_owned(),
        };
        let cells = [runs.name.clone()].into_iter().chain(rate(runs));
        table.row(cells.chain(ours.map(to)).chain(costs(runs)));
    }
    table
}

fn section(bench: &Bench, runs: &[Runs]) -> Section {
    let mut section = Section::new("table", "Throughput", ratios(runs));
    section.notes.push(format!(
        "{} requests in runs of (a) to (c), {FASTER} times as many in (g); medians over the rounds \
        ({}), ratios too: each is of two runs of one round.",
        number(bench.requests.into()),
        bench.rounds
    ));
    let Some(ours) = find(runs, REVERTD) else {
        return section;
    };
    section
        .headlines
        .push(("reverts a second", number(ours.rate())));
    let others = [
        ("to one message a transaction", ONE),
        (
            "to Frontier's statements, 1,000 entries an account",
            FRONTIER[0],
        ),
        ("to the broker alone", BROKER),
    ];
    for (what, name) in others {
        if let Some(other) = find(runs, name) {
            let times = format!("{} times", ratio(ours.ratio_to(other)));
            section.headlines.push((what, times));
        }
    }
    let [worker, ..] = costs(ours);
    section.headlines.push(("worker CPU a revert", worker));
    if let Some(groups) = find(runs, GROUPS) {
        let to = |other| format!("{} times", ratio(groups.ratio_to(other)));
        section
            .headlines
            .push(("groups of 100, to one by one", to(ours)));
        if let Some(database) = find(runs, DATABASE) {
            section
                .headlines
                .push(("groups of 100, to the database alone", to(database)));
        }
    }
    section
}
