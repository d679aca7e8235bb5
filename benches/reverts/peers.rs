//! Contender (f): workers in Node.js that do the same work (benches/peers).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::contest::{FASTER, GROUPS, REVERTD, ratios};
use crate::deadline::{PATIENCE, within};
use crate::load::Load;
use crate::process::Worker;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::stage::in_repository;
use crate::table::number;

/// A worker in Node.js.
#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    mode: &'static str,
    is_corked: bool,
    /// Messages of a batch, if not the peer's default.
    batch: Option<u32>,
    /// Whether its messages are groups.
    is_grouped: bool,
    /// About how many times as long a request takes.
    slower: u32,
}

const BATCHED: Peer = Peer {
    name: "(f) Node.js, batches of 200",
    mode: "batched",
    is_corked: false,
    batch: None,
    is_grouped: false,
    slower: 1,
};

/// The best of the batch sizes is the peer to compare groups with.
const GROUPED: [Peer; 2] = [
    Peer {
        name: "(f) Node.js, groups of 100, two in a batch",
        batch: Some(2),
        is_grouped: true,
        ..BATCHED
    },
    Peer {
        name: "(f) Node.js, groups of 100, five in a batch",
        batch: Some(5),
        is_grouped: true,
        ..BATCHED
    },
];

const OTHERS: [Peer; 3] = [
    Peer {
        name: "(f) Node.js, batches of 200, sockets corked",
        is_corked: true,
        ..BATCHED
    },
    Peer {
        name: "(f) Node.js, one statement a message",
        mode: "statement",
        slower: 4,
        ..BATCHED
    },
    Peer {
        name: "(f) Node.js, one transaction a message",
        mode: "single",
        slower: 8,
        ..BATCHED
    },
];

pub async fn measure(bench: &Bench) -> Result<Section> {
    let load = Load::good(bench.requests);
    let groups = Load::groups(FASTER * bench.requests);
    let mut cases = vec![
        Case::new(REVERTD, || bench.revertd(load, &[])),
        Case::new(GROUPS, || bench.revertd(groups, &[])),
    ];
    for peer in [BATCHED].into_iter().chain(GROUPED).chain(OTHERS) {
        cases.push(Case::new(peer.name, move || run(bench, peer)));
    }
    let runs = interleave(bench.rounds, &cases).await?;
    let mut section = Section::new("peers", "Beside workers in Node.js", ratios(&runs));
    section.notes.push(format!(
        "amqplib and pg, {}; {} requests in runs of (c) and of batches, {FASTER} times as many in \
        runs of groups; medians over the rounds ({}), ratios too: each is of two runs of one \
        round.",
        node()?,
        number(load.requests.into()),
        bench.rounds
    ));
    Ok(section)
}

async fn run(bench: &Bench, peer: Peer) -> Result<Figures> {
    let requests = (bench.requests / peer.slower).max(1);
    let load = if peer.is_grouped {
        Load::groups(FASTER * requests)
    } else {
        Load::good(requests)
    };
    let stage = bench.stage(&[]).await?;
    stage.seed(load).await?;
    stage.publish(load).await?;
    let mut command = Command::new("node");
    command
        .arg(in_repository("benches/peers/worker.js"))
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(stage.environment.iter().cloned())
        .env("PEER_MODE", peer.mode)
        .env("PEER_QUEUE", stage.work_queue())
        .env("PEER_REPLY_EXCHANGE", stage.reply_exchange());
    if let Some(batch) = peer.batch {
        command.env("PEER_BATCH", batch.to_string());
    }
    if peer.is_corked {
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
    stage.check_batches(load).await?;
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
