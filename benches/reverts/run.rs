//! One run of a contender, measured from `ready` to the last acknowledgement.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::deadline::Progress;
use crate::load::Load;
use crate::meter::{Meter, Servers, Spent};
use crate::process::{READY, Worker, revertd};
use crate::stage::{Stage, Variables};

/// The parameters of all runs.
#[derive(Clone)]
pub struct Bench {
    pub servers: Servers,
    /// Requests of a run of revertd in full batches. Slower cases have fewer, so that they take
    /// about as long.
    pub requests: u32,
    pub rounds: u32,
    /// Settings of the revertd under test that differ from its defaults.
    pub settings: Variables,
}

/// The measurements of a run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Messages; of groups, their requests.
    pub messages: u32,
    pub spent: Spent,
    /// Peak memory of the largest worker process.
    pub peak_mib: f64,
}

impl Figures {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.messages) / self.spent.elapsed.as_secs_f64()
    }

    /// The microseconds of `time` per message.
    pub fn micros(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / f64::from(self.messages)
    }
}

impl Bench {
    /// A stage for revertd, with settings in addition to those of the whole benchmark.
    pub async fn stage(&self, settings: &[(&str, String)]) -> Result<Stage> {
        let mut all = self.settings.clone();
        let owned = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
        all.extend(settings.iter().map(owned));
        Stage::new(&all).await
    }

    /// Contender (c); with other settings, contender (d).
    pub async fn revertd(&self, load: Load, settings: &[(&str, String)]) -> Result<Figures> {
        self.fleet(load, settings, 1).await
    }

    /// Runs revertd as `processes` processes.
    pub async fn fleet(
        &self,
        load: Load,
        settings: &[(&str, String)],
        processes: u32,
    ) -> Result<Figures> {
        let stage = self.stage(settings).await?;
        stage.seed(load).await?;
        let figures = self.work_off(&stage, load, processes).await?;
        stage.clean().await?;
        Ok(figures)
    }

    /// Publishes a load on a stage that has its usages, waits until the workers have settled it,
    /// and checks the result.
    pub async fn work_off(&self, stage: &Stage, load: Load, processes: u32) -> Result<Figures> {
        stage.publish(load).await?;
        let mut workers = Vec::new();
        for _ in 0..processes {
            workers.push(Worker::spawn(revertd(&stage.environment, "worker"))?);
        }
        for worker in &mut workers {
            worker.says(READY).await?;
        }
        let figures = self.drain(stage, &mut workers, load).await?;
        for worker in workers {
            worker.stop().await?;
        }
        stage.check(load).await?;
        Ok(figures)
    }

    /// Contender (a).
    pub async fn broker_alone(&self, load: Load) -> Result<Figures> {
        let stage = self.stage(&[]).await?;
        stage.publish(load).await?;
        let arguments = [
            format!("--queue={}", stage.work_queue()),
            format!("--exchange={}", stage.reply_exchange()),
        ];
        let worker = Worker::contender("broker-alone", &stage.environment, &arguments).await?;
        let mut workers = [worker];
        let figures = self.drain(&stage, &mut workers, load).await?;
        for worker in workers {
            worker.stop().await?;
        }
        stage.clean().await?;
        Ok(figures)
    }

    /// Contender (b).
    pub async fn database_alone(&self, load: Load) -> Result<Figures> {
        let stage = self.stage(&[]).await?;
        stage.seed(load).await?;
        let arguments = [
            format!("--requests={}", load.requests),
            format!("--accounts={}", load.accounts),
        ];
        let mut worker =
            Worker::contender("database-alone", &stage.environment, &arguments).await?;
        let meter = Meter::start(&self.servers, &[worker.id()])?;
        worker.says("done").await?;
        let mut spent = meter.spent()?;
        let output = worker.output()?;
        let seconds = output.lines().find_map(|line| line.strip_prefix("done "));
        spent.elapsed = Duration::from_secs_f64(seconds.context("a time")?.parse()?);
        let peak_mib = worker.peak_mib()?;
        drop(worker);
        stage.check(load).await?;
        stage.clean().await?;
        Ok(Figures {
            messages: load.requests,
            spent,
            peak_mib,
        })
    }

    /// Measures until the reply queue holds an event for each message of this load and of the
    /// earlier ones. The events of a group are one message, because they have one routing key and
    /// less than the bytes of a batch; [`Stage::check`] counts them.
    pub async fn drain(
        &self,
        stage: &Stage,
        workers: &mut [Worker],
        load: Load,
    ) -> Result<Figures> {
        let pids: Vec<_> = workers.iter().map(Worker::id).collect();
        let replies = stage.reply_queue();
        let meter = Meter::start(&self.servers, &pids)?;
        let already = stage.depth(&replies).await?;
        let all = load.all_messages();
        let mut progress = Progress::new();
        loop {
            let depth = stage.depth(&replies).await?;
            if depth >= all {
                break;
            }
            for worker in workers.iter_mut() {
                worker.must_run()?;
                let log = || format!("waiting for {all} messages of events\n{}", worker.tail());
                progress.see(depth.into()).with_context(log)?;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let spent = meter.spent()?;
        let peaks = workers.iter().map(Worker::peak_mib);
        let peaks: Vec<f64> = peaks.collect::<Result<_>>()?;
        Ok(Figures {
            messages: (all - already) * load.group,
            spent,
            peak_mib: peaks.into_iter().fold(0.0, f64::max),
        })
    }
}
