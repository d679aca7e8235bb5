//! One run of a contender, measured from `ready` to the last acknowledgement.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::meter::{Meter, Servers, Spent};
use crate::process::Worker;
use crate::stage::{Load, Stage};

pub struct Figures {
    pub messages: u32,
    pub spent: Spent,
    pub peak_mib: f64,
}

impl Figures {
    pub fn rate(&self) -> f64 {
        f64::from(self.messages) / self.spent.elapsed.as_secs_f64()
    }

    pub fn micros(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / f64::from(self.messages)
    }
}

pub async fn try_out(requests: u32, rounds: u32, which: &[String]) -> Result<()> {
    let servers = Servers::find();
    for _ in 0..rounds {
        for which in which {
            let load = Load::good(if which == "d" {
                requests / 20
            } else {
                requests
            });
            let figures = match which.as_str() {
                "a" => broker_alone(&servers, load).await?,
                "b" => database_alone(&servers, load).await?,
                "d" => revertd(&servers, load, &[("REVERTD_WORKER__BATCH_MAX", "1")]).await?,
                _ => revertd(&servers, load, &[]).await?,
            };
            let micros = |time: Option<Duration>| figures.micros(time.unwrap_or_default());
            println!(
                "{which} {:>8.0}/s worker {:>6.1} broker {:>6.1} database {:>6.1} all {:>6.1} wall*2 {:>6.1} us  peak {:.1} MiB",
                figures.rate(),
                figures.micros(figures.spent.workers),
                micros(figures.spent.broker),
                micros(figures.spent.database),
                figures.micros(figures.spent.workers)
                    + micros(figures.spent.broker)
                    + micros(figures.spent.database),
                2.0 * figures.micros(figures.spent.elapsed),
                figures.peak_mib
            );
        }
    }
    Ok(())
}

pub async fn revertd(servers: &Servers, load: Load, settings: &[(&str, &str)]) -> Result<Figures> {
    let stage = Stage::new(settings).await?;
    stage.seed(load).await?;
    stage.publish(load).await?;
    let mut worker = Worker::revertd(&stage.environment).await?;
    let figures = drain(servers, &stage, &mut worker, load).await?;
    worker.stop()?;
    stage.check(load).await?;
    stage.clean().await?;
    Ok(figures)
}

pub async fn broker_alone(servers: &Servers, load: Load) -> Result<Figures> {
    let stage = Stage::new(&[]).await?;
    stage.publish(load).await?;
    let arguments = [
        format!("--queue={}", stage.work_queue()),
        format!("--exchange={}", stage.reply_exchange()),
    ];
    let mut worker = Worker::contender("broker-alone", &stage.environment, &arguments).await?;
    let figures = drain(servers, &stage, &mut worker, load).await?;
    worker.stop()?;
    stage.clean().await?;
    Ok(figures)
}

pub async fn database_alone(servers: &Servers, load: Load) -> Result<Figures> {
    let stage = Stage::new(&[]).await?;
    stage.seed(load).await?;
    let arguments = [format!("--requests={}", load.requests)];
    let mut worker = Worker::contender("database-alone", &stage.environment, &arguments).await?;
    let meter = Meter::start(servers, &[worker.id()])?;
    while !worker.output()?.contains("done") {
        ensure!(worker.is_running()?, "it ended: {}", worker.output()?);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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

async fn drain(
    servers: &Servers,
    stage: &Stage,
    worker: &mut Worker,
    load: Load,
) -> Result<Figures> {
    let meter = Meter::start(servers, &[worker.id()])?;
    let replies = stage.reply_queue();
    while stage.depth(&replies).await? < load.messages() {
        ensure!(worker.is_running()?, "it ended: {}", worker.output()?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Figures {
        messages: load.messages(),
        spent: meter.spent()?,
        peak_mib: worker.peak_mib()?,
    })
}
