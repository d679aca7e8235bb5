//! Time from the start of a worker process to its first acknowledgement and to its full speed.

use std::time::{Duration, Instant};

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

/// Requests that wait: more than a second's work.
const WAITING: u32 = 20_000;

const TRIES: u32 = 11;

/// Full speed is this share of the rate of the second half of the events,
const FULL: f64 = 0.9;

/// over this time: several batches of each worker.
const SPAN: Duration = Duration::from_millis(250);

/// Milliseconds from the start of a process.
struct Times {
    ready: f64,
    first: f64,
    full_speed: f64,
}

pub async fn measure(bench: &Bench) -> Result<Section> {
    let stage = bench.stage(&[]).await?;
    let all = Load::good(WAITING * TRIES);
    stage.seed(all).await?;
    let mut load = Load::good(0);
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        load = load.next(WAITING);
        // The broker requeued unacknowledged events of the previous try's consumer.
        stage.empty(&stage.reply_queue()).await?;
        stage.publish(load).await?;
        tries.push(once(&stage, load).await?);
    }
    stage.check(all).await?;
    stage.clean().await?;
    let mut table = Table::new([
        "from the start of the process",
        "median",
        "shortest",
        "longest",
    ]);
    let all = |time: fn(&Times) -> f64| -> Vec<f64> { tries.iter().map(time).collect() };
    let first = all(|times| times.first);
    let full_speed = all(|times| times.full_speed);
    let rows = [
        ("until it logs that it is ready", all(|times| times.ready)),
        (
            "until the first event, which is acknowledged next",
            first.clone(),
        ),
        ("until it works at full speed", full_speed.clone()),
    ];
    for (name, times) in rows {
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
    for (name, times) in [
        ("start to first acknowledgement", first),
        ("start to full speed", full_speed),
    ] {
        let time = format!("{:.0} ms", median(times).unwrap_or(f64::NAN));
        section.headlines.push((name, time));
    }
    Ok(section)
}

/// Starts a worker, and waits for the events of all requests.
async fn once(stage: &Stage, load: Load) -> Result<Times> {
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
        anyhow::Ok(times)
    });
    let mut worker = Worker::spawn(revertd(&stage.environment, "worker"))?;
    worker.says(READY).await?;
    let ready = worker.began.elapsed();
    let events = within(PATIENCE, "the events", consuming).await;
    let events = events.with_context(|| worker.tail())??;
    let since = |event: Instant| 1000.0 * event.duration_since(worker.began).as_secs_f64();
    let first = events.first().copied().context("requests wait")?;
    let full_speed = full_speed(&events).context("the second half takes longer than a span")?;
    let times = Times {
        ready: 1000.0 * ready.as_secs_f64(),
        first: since(first),
        full_speed: since(full_speed),
    };
    worker.stop().await?;
    Ok(times)
}

/// The first event of full speed.
fn full_speed(events: &[Instant]) -> Option<Instant> {
    let second_half = &events[events.len() / 2..];
    let time = second_half
        .last()?
        .duration_since(*second_half.first()?)
        .as_secs_f64();
    let counts = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
    let needed = FULL * SPAN.as_secs_f64() * counts(second_half.len()) / time;
    let in_span = |first: &usize| {
        let end = events[*first] + SPAN;
        counts(events[*first..].partition_point(|event| *event < end)) >= needed
    };
    (0..events.len()).find(in_span).map(|first| events[first])
}
