//! Time from the start of a worker process to its first acknowledgement.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::deadline::{PATIENCE, within};
use crate::load::Load;
use crate::openloop;
use crate::process::{READY, Worker, revertd};
use crate::report::Section;
use crate::rounds::median;
use crate::run::Bench;
use crate::stage::{Stage, urls};
use crate::table::Table;
use crate::wire::Wire;

/// Requests that wait: more than a worker receives at once.
const WAITING: u32 = 5_000;

const TRIES: u32 = 11;

pub async fn measure(bench: &Bench) -> Result<Section> {
    let stage = bench.stage(&[]).await?;
    let all = Load::good(WAITING * TRIES);
    stage.seed(all).await?;
    let mut load = Load::good(0);
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        load = load.next(WAITING);
        // The broker requeued unacknowledged events of the previous try's consumer.
        stage.empty(&stage.reply_queue()).await?;
        stage.publish(load).await?;
        let times = once(&stage, load).await?;
        ready.push(times.0);
        first.push(times.1);
    }
    stage.check(all).await?;
    stage.clean().await?;
    let mut table = Table::new([
        "from the start of the process",
        "median",
        "shortest",
        "longest",
    ]);
    let names = [
        "until it logs that it is ready",
        "until the first event, which is acknowledged next",
    ];
    for (name, times) in names.into_iter().zip([&ready, &first]) {
        let of = |pick: fn(f64, f64) -> f64| times.iter().copied().reduce(pick);
        let cells = [median(times.clone()), of(f64::min), of(f64::max)];
        let cells = cells.map(|time| format!("{:.0} ms", time.unwrap_or(f64::NAN)));
        table.row(std::iter::once(name.to_owned()).chain(cells));
    }
    let mut section = Section::new("start", "Start", table);
    section.notes.push(format!(
        "{TRIES} starts with {} requests waiting, on a schema and a topology that are there. The \
        event is seen by a consumer of the reply queue; its request is acknowledged as soon as \
        the events of its batch are confirmed.",
        crate::table::number(WAITING.into())
    ));
    let start = format!("{:.0} ms", median(first).unwrap_or(f64::NAN));
    section
        .headlines
        .push(("start to first acknowledgement", start));
    Ok(section)
}

/// Milliseconds until the worker is ready, and until the first event arrives.
async fn once(stage: &Stage, load: Load) -> Result<(f64, f64)> {
    let (amqp, queue) = (urls()?.1, stage.reply_queue());
    let opening = tokio::task::spawn_blocking(move || {
        let mut wire = Wire::open(&amqp)?;
        wire.consume(&queue)?;
        anyhow::Ok(wire)
    });
    let mut wire = opening.await??;
    let consuming = tokio::task::spawn_blocking(move || {
        let mut times = Vec::new();
        // Receive all events, so that the next try begins with an empty queue, except for the
        // events that the broker redelivers because the consumer of the previous try is gone.
        while times.len() < load.requests as usize {
            let number = openloop::number(wire.next_properties()?);
            if number.is_some_and(|number| load.numbers().contains(&number)) {
                times.push(Instant::now());
            }
        }
        times.first().copied().context("requests wait")
    });
    let mut worker = Worker::spawn(revertd(&stage.environment, "worker"))?;
    worker.says(READY).await?;
    let ready = worker.began.elapsed();
    let first = within(PATIENCE, "the first event", consuming).await;
    let first = first.with_context(|| worker.tail())??;
    let first = first.duration_since(worker.began);
    worker.stop().await?;
    Ok((1000.0 * ready.as_secs_f64(), 1000.0 * first.as_secs_f64()))
}
