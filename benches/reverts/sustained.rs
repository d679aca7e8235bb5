//! The sustained rate: the largest rate of an open loop at which the queue does not grow.

use anyhow::{Context, Result, ensure};

use crate::load::Load;
use crate::openloop::{Measured, Plan};
use crate::process::Worker;
use crate::run::Bench;
use crate::stage::{Stage, urls};
use crate::table::number;

/// Seconds at the start of each load whose latencies are left out.
pub const WARM_UP: f64 = 3.0;

/// The number of rates that the search tries. Each halves the interval that has the sustained rate.
const PROBES: u32 = 5;

/// From this growth of the latency on, in seconds a second, the queue grows.
const GROWTH: f64 = 0.02;

/// A worker on a stage, and the loads that it has had.
pub struct OpenLoop {
    stage: Stage,
    worker: Worker,
    load: Load,
}

impl OpenLoop {
    pub async fn start(bench: &Bench) -> Result<Self> {
        let (stage, load) = (bench.stage(&[]).await?, Load::good(0));
        stage.seed_accounts(load.accounts).await?;
        let worker = Worker::revertd(&stage.environment).await?;
        Ok(Self {
            stage,
            worker,
            load,
        })
    }

    /// Measures at a rate for the given number of seconds.
    pub async fn at(&mut self, rate: f64, seconds: f64) -> Result<Measured> {
        self.load = self.load.next(whole(rate * (WARM_UP + seconds)));
        self.stage.seed_usages(self.load).await?;
        let plan = Plan {
            amqp: urls()?.1,
            exchange: self.stage.request_exchange(),
            reply_queue: self.stage.reply_queue(),
            load: self.load,
            rate,
            warm_up: whole(rate * WARM_UP),
        };
        let measured = tokio::task::spawn_blocking(move || plan.run()).await?;
        self.worker.must_run()?;
        measured.with_context(|| self.worker.tail())
    }

    /// The sustained rate, and the lowest rate that was found to be higher. It is searched from 0
    /// to `highest`.
    pub async fn sustained(&mut self, highest: f64, seconds: f64) -> Result<(f64, f64)> {
        let (mut sustained, mut higher) = (0.0, highest);
        for _ in 0..PROBES {
            let rate = f64::midpoint(sustained, higher);
            let growth = self.at(rate, seconds).await?.growth;
            eprintln!(
                "{}/s: latency grows by {:.1} ms a second",
                number(rate),
                1000.0 * growth
            );
            if growth < GROWTH {
                sustained = rate;
            } else {
                higher = rate;
            }
        }
        ensure!(
            sustained > 0.0,
            "the queue grows even at {}/s",
            number(higher)
        );
        Ok((sustained, higher))
    }

    /// Stops the worker, checks the outcomes of all loads, and removes the stage.
    pub async fn finish(self) -> Result<()> {
        self.worker.stop().await?;
        let all = Load::good(self.load.first + self.load.requests - 1);
        self.stage.check(all).await?;
        self.stage.clean().await
    }
}

/// A positive number of requests as an integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a million at most"
)]
fn whole(requests: f64) -> u32 {
    requests.max(1.0) as u32
}
