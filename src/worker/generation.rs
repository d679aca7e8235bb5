//! One generation of the pool: what it needs, its workers, its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batch::Worker;
use super::copies::{Copies, Courier};
use super::{Exit, Handover, Pool, WorkerError};
use crate::broker::{self, Broker, BrokerError, Consumer};
use crate::common::failpoint;
use crate::telemetry::Pause;

/// How long the others of a failed generation may finish what they have in hand.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// How long nothing is settled until it is seen whether the broker takes messages.
const IDLE_PROBE: Duration = Duration::from_secs(5);

impl Pool {
    /// One generation, from what the one before left to its end.
    pub(super) async fn generation(
        &self,
        handover: &Handover,
        ready: &mut bool,
    ) -> Result<Exit, WorkerError> {
        let started = tokio::select! {
            started = self.start(handover) => started,
            () = self.stop.cancelled() => return Ok(Exit::Stopped),
        };
        let Resources {
            broker,
            consumer,
            workers,
            couriers,
        } = match started {
            Ok(resources) => resources,
            Err(end) => return Ok(end),
        };
        *ready = true;
        let status = &self.shared.telemetry.status;
        status.database(Ok(()));
        status.broker(true);
        status.consuming();
        let queue = self.shared.settings.topology.work_queue.as_str();
        info!(queue, workers = workers.len(), "ready");
        let mut copying = JoinSet::new();
        for courier in couriers {
            copying.spawn(courier.run());
        }
        let over = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for worker in workers {
            tasks.spawn(worker.run(over.clone()));
        }
        let ended = match self.watch(&mut tasks, &broker, &consumer, &over).await {
            Ok(Exit::Broker(error)) => Ok(Exit::Broker(broker.cause(error).await)),
            ended => ended,
        };
        // What did not end by now ends here, and is no crash. Before the tasks are dropped: a statement that is under way
        // would keep its connection busy. Where it fails, it is done before the next generation begins.
        let _ = timeout(WIND_DOWN, self.shared.journal.uncount()).await;
        tasks.shutdown().await;
        status.not_consuming();
        status.broker(false);
        // Where it fails, what was settled is delivered again, and answered as before.
        let _ = timeout(WIND_DOWN, consumer.settle_the_rest()).await;
        if let Ok(Exit::Broker(error)) = &ended
            && error.is_blocked()
        {
            copying.abort_all();
            return Ok(self.wait_out(&broker, error).await);
        }
        // They end once the workers are gone and what they left is sent.
        let sent = async { while copying.join_next().await.is_some() {} };
        let _ = timeout(WIND_DOWN, sent).await;
        copying.abort_all();
        broker.close().await;
        ended
    }

    /// Waits until the broker takes messages again, with nothing in hand. Whoever stops us need not wait for that.
    async fn wait_out(&self, broker: &Broker, blocked: &BrokerError) -> Exit {
        error!(error = %blocked, "paused: the broker");
        self.shared.telemetry.status.paused(Pause::Broker, &blocked);
        broker.stop_consuming().await;
        tokio::select! {
            () = broker.unblocked() => {}
            () = self.stop.cancelled() => {}
        }
        broker.close().await;
        Exit::Unblocked
    }

    /// Everything a generation needs, in the order in which it must be there before a delivery comes.
    async fn start(&self, handover: &Handover) -> Result<Resources, Exit> {
        let settings = &self.shared.settings;
        match self.look().await {
            Ok(None) => {}
            Ok(Some(told)) => return Err(Exit::Paused(told)),
            Err(error) => return Err(Exit::Ledger(error)),
        }
        let probed = self.shared.ledger.probe().await;
        probed.map_err(Exit::Ledger)?;
        let opened = self.shared.journal.open().await;
        opened.map_err(Exit::Ledger)?;
        let broker = Arc::new(
            Broker::connect(settings, handover.failed)
                .await
                .map_err(Exit::Broker)?,
        );
        let opened = tokio::select! {
            opened = self.open(&broker) => opened,
            blocked = broker.blocked() => Err(blocked),
        };
        match opened {
            Ok(resources) => Ok(resources),
            Err(error) if error.is_blocked() => Err(self.wait_out(&broker, &error).await),
            Err(error) => {
                let cause = broker.cause(error).await;
                broker.close().await;
                Err(Exit::Broker(cause))
            }
        }
    }

    async fn open(&self, broker: &Arc<Broker>) -> Result<Resources, BrokerError> {
        let settings = &self.shared.settings;
        let alternate = broker.ensure_topology(settings).await?;
        // Until it was in order once, whatever failed before.
        if !self.assured.load(Ordering::Relaxed) {
            if let Some(warning) = broker::assure(settings, alternate).await? {
                warn!(event = "alternate_exchange", "{warning}");
            }
            self.assured.store(true, Ordering::Relaxed);
        }
        let mut publishers = Vec::new();
        for _ in 0..settings.worker.concurrency {
            publishers.push(broker.publisher().await?);
        }
        if let Some(publisher) = publishers.first() {
            publisher.probe().await?;
        }
        let queue = settings.topology.work_queue.as_str();
        let consumer = Arc::new(broker.consumer(queue, settings.in_flight()).await?);
        let (copies, couriers) = Copies::new(&self.shared, broker);
        let worker = |publisher| {
            let (shared, copies) = (self.shared.clone(), copies.clone());
            Worker::new(shared, broker.clone(), consumer.clone(), publisher, copies)
        };
        let workers = publishers.into_iter().map(worker).collect();
        Ok(Resources {
            broker: broker.clone(),
            consumer,
            workers,
            couriers,
        })
    }

    /// Waits for the first worker to end, or for the stop; then for the others, within bounds.
    async fn watch(
        &self,
        tasks: &mut JoinSet<Exit>,
        broker: &Broker,
        consumer: &Consumer,
        over: &CancellationToken,
    ) -> Result<Exit, WorkerError> {
        let mut end = tokio::select! {
            first = tasks.join_next() => first.map_or(Exit::Stopped, |first| self.joined(first)),
            error = broker.blocked() => Exit::Broker(error),
            error = self.takes_nothing(broker) => Exit::Broker(error),
            told = self.shared.paused() => match told {
                Ok(told) => Exit::Paused(told),
                Err(error) => Exit::Ledger(error),
            },
            () = self.stop.cancelled() => Exit::Stopped,
        };
        let stopping = self.stop.is_cancelled();
        let backoff = if matches!(end, Exit::Stopped | Exit::Paused(_)) {
            self.shared.settings.worker.shutdown_timeout
        } else {
            // What was handed out is finished; the rest is delivered again.
            over.cancel();
            WIND_DOWN
        };
        let rest = async {
            if !matches!(end, Exit::Broker(_)) {
                // A stop, or a pause, finishes what was delivered; whoever else ends it, nothing more is to come.
                if let Err(error) = consumer.stop().await {
                    end = Exit::Broker(error);
                }
                if stopping {
                    failpoint::hit(failpoint::STOPPING);
                }
            }
            while let Some(next) = tasks.join_next().await {
                end = worse(
                    std::mem::replace(&mut end, Exit::Stopped),
                    self.joined(next),
                );
                if !matches!(end, Exit::Stopped | Exit::Paused(_)) {
                    over.cancel();
                }
            }
        };
        let finished = timeout(backoff, rest).await.is_ok();
        if !self.stop.is_cancelled() {
            return Ok(end);
        }
        match end {
            Exit::Stopped | Exit::Unblocked | Exit::Paused(_) | Exit::Panicked if finished => {
                Ok(Exit::Stopped)
            }
            Exit::Stopped | Exit::Unblocked | Exit::Paused(_) | Exit::Panicked => {
                Err(WorkerError::Unfinished)
            }
            Exit::Ledger(error) => {
                warn!(error = %error, "the database failed during the stop");
                Err(WorkerError::Unfinished)
            }
            Exit::Broker(error) => {
                warn!(error = %error, "the broker failed during the stop");
                Err(WorkerError::Unfinished)
            }
        }
    }

    /// A worker that panicked met a bug: what was in work is delivered again, and counted as a crash.
    fn joined(&self, result: Result<Exit, JoinError>) -> Exit {
        result.unwrap_or_else(|error| {
            self.shared.journal.crashed();
            error!(%error, "worker task panicked; this is a bug in revertd, please report it");
            Exit::Panicked
        })
    }

    /// Returns once the broker takes no messages, while there are none to publish: it says so only to who tries.
    async fn takes_nothing(&self, broker: &Broker) -> BrokerError {
        let mut publisher = None;
        loop {
            let settled = self.shared.settled.load(Ordering::Relaxed);
            sleep(IDLE_PROBE).await;
            if self.shared.settled.load(Ordering::Relaxed) != settled {
                continue;
            }
            let probing = async {
                let publisher = match publisher.take() {
                    Some(publisher) => publisher,
                    None => broker.publisher().await?,
                };
                publisher.probe().await?;
                Ok(publisher)
            };
            match probing.await {
                Ok(probed) => publisher = Some(probed),
                Err(error) => return error,
            }
        }
    }
}

/// What a generation works with.
struct Resources {
    broker: Arc<Broker>,
    consumer: Arc<Consumer>,
    workers: Vec<Worker>,
    couriers: [Courier; 2],
}

/// The end that says more about what to do next.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |end: &Exit| match end {
        Exit::Stopped | Exit::Unblocked | Exit::Paused(_) => 0,
        Exit::Broker(_) => 1,
        Exit::Ledger(_) => 2,
        Exit::Panicked => 3,
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
    }
}
