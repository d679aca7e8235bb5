//! Contender (b): revertd's own statement on full batches, without a broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use revertd::config::Settings;
use revertd::domain::disposition::{self, Reading};
use revertd::domain::outcome::{Decision, Verdict};
use revertd::domain::request::Envelope;
use revertd::ledger::Ledger;
use tokio::task::JoinSet;

use crate::load::{Load, message_id};

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[arg(long)]
    requests: u32,
    #[arg(long, default_value_t = 1000)]
    accounts: u32,
}

/// Decides all requests, and prints `done` with the seconds that this took.
pub async fn run(args: Args) -> Result<()> {
    let settings = Arc::new(Settings::load(None)?);
    let ledger = Ledger::new(&settings)?;
    let load = Load {
        accounts: args.accounts,
        ..Load::good(args.requests)
    };
    let next = Arc::new(AtomicU32::new(1));
    println!("ready");
    let began = std::time::Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..settings.worker.concurrency {
        workers.spawn(work(settings.clone(), ledger.clone(), load, next.clone()));
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    println!("done {}", began.elapsed().as_secs_f64());
    // Stay alive until the parent process has read the CPU time and memory of this one.
    tokio::time::sleep(Duration::from_mins(1)).await;
    Ok(())
}

async fn work(
    settings: Arc<Settings>,
    ledger: Ledger,
    load: Load,
    next: Arc<AtomicU32>,
) -> Result<()> {
    let batch_max = u32::from(settings.worker.batch_max);
    let (ladder, limits) = (settings.ladder(), settings.amqp.request_limits());
    loop {
        let first = next.fetch_add(batch_max, Ordering::Relaxed);
        if first > load.requests {
            return Ok(());
        }
        let mut requests = Vec::new();
        for number in first..=load.requests.min(first + batch_max - 1) {
            let body = load.body(number);
            let envelope = Envelope {
                client: "bench".into(),
                message_id: Some(message_id(number)),
                ..Envelope::default()
            };
            let now = jiff::Timestamp::now();
            match disposition::read(&envelope, body.as_bytes(), &limits, false, &ladder, now) {
                Reading::Request(request) => requests.push(request),
                other @ (Reading::Group(_) | Reading::Done(_)) => anyhow::bail!("{other:?}"),
            }
        }
        for decision in ledger.apply(&requests).await? {
            let applied = matches!(&decision,
                Decision::Decided(outcome) if matches!(outcome.verdict, Verdict::Applied(_)));
            ensure!(applied, "{decision:?}");
        }
    }
}
