//! Contender (f): workers in Node.js that do the same work (benches/peers).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::deadline::{PATIENCE, within};
use crate::load::Load;
use crate::process::Worker;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::stage::in_repository;
use crate::table::{COSTS, Table, costs, number, rate, ratio};

/// Name, mode, whether the sockets are corked, and about how many times as long a request takes.
const PEERS: [(&str, &str, bool, u32); 4] = [
    ("Node.js, batches of 200", "batched", false, 1),
    (
        "Node.js, batches of 200, sockets corked",
        "batched",
        true,
        1,
    ),
    ("Node.js, one statement a message", "statement", false, 4),
    ("Node.js, one transaction a message", "single", false, 8),
];

pub async fn measure(bench: &Bench) -> Result<Section> {
    let load = Load::good(bench.requests);
    let mut cases = vec![Case::new("(c) revertd", || bench.revertd(load, &[]))];
    for (name, mode, cork, slower) in PEERS {
        let load = Load::good((bench.requests / slower).max(1));
        let run = move || peer(bench, load, mode, cork);
        cases.push(Case::new(format!("(f) {name}"), run));
    }
    let runs = interleave(bench.rounds, &cases).await?;
    let header = ["", "reverts/s", "from, to", "(c) to it"];
    let mut table = Table::new(header.into_iter().chain(COSTS));
    for of in &runs {
        let cells = [of.name.clone()].into_iter().chain(rate(of));
        table.row(cells.chain([ratio(runs[0].ratio_to(of))]).chain(costs(of)));
    }
    let mut section = Section::new("peers", "Beside workers in Node.js", table);
    section.notes.push(format!(
        "amqplib and pg, {}; {} requests in runs of (c) and of batches; medians over the rounds \
        ({}), ratios too: each is of two runs of one round.",
        node()?,
        number(load.requests.into()),
        bench.rounds
    ));
    Ok(section)
}

async fn peer(bench: &Bench, load: Load, mode: &str, cork: bool) -> Result<Figures> {
    let stage = bench.stage(&[]).await?;
    stage.seed(load).await?;
    stage.publish(load).await?;
    let mut command = Command::new("node");
    command
        .arg(in_repository("benches/peers/worker.js"))
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(stage.environment.iter().cloned())
        .env("PEER_MODE", mode)
        .env("PEER_QUEUE", stage.work_queue())
        .env("PEER_REPLY_EXCHANGE", stage.reply_exchange());
    if cork {
        command.env("PEER_CORK", "1");
    }
    let mut worker = Worker::spawn(command)?;
    worker.says("ready").await?;
    let mut workers = [worker];
    let figures = bench.drain(&stage, &mut workers, load).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let left = stage.depth(&stage.work_queue()).await?;
    let query = "SELECT count(*) FROM peer_outcomes";
    let row = within(PATIENCE, "counting", stage.db.query_one(query, &[])).await?;
    let applied: i64 = row.get(0);
    ensure!(
        left == 0 && applied == i64::from(load.requests),
        "{applied} applied, {left} left"
    );
    stage.clean().await?;
    Ok(figures)
}

fn node() -> Result<String> {
    let output = Command::new("node").arg("--version").output();
    let output = output.context("Node.js is not installed: make bench-peers")?;
    Ok(format!(
        "Node.js {}",
        String::from_utf8(output.stdout)?.trim()
    ))
}
