//! A generation: connections, workers, and their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batch::Worker;
use super::copies::{CopyQueues, CopySender};
use super::operator_pause;
use super::shared::Shared;
use super::state::{Exit, Report};
use crate::broker::{self, Broker, BrokerError, Consumer};
use crate::common::failpoint;
use crate::telemetry::Pause;

/// The time in which the workers of a failed generation may settle the messages in flight.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// The time without a settled batch after which a probe asks whether the broker takes messages.
const IDLE_PROBE: Duration = Duration::from_secs(5);

/// Begins generations, and sees each to its end.
pub struct Generations {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Whether the topology was found to lose no message.
    topology_checked: AtomicBool,
}

/// The connections, channels and tasks of one generation.
struct Resources {
    broker: Arc<Broker>,
    consumer: Arc<Consumer>,
    workers: Vec<Worker>,
    copy_senders: [CopySender; 2],
}

impl Generations {
    pub fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self {
            shared,
            stop,
            topology_checked: AtomicBool::new(false),
        }
    }

    /// Runs one generation. `server_failed`: the last one ended because a server failed.
    pub async fn run(&self, server_failed: bool) -> Report {
        let started = tokio::select! {
            started = self.start(server_failed) => started,
            () = self.stop.cancelled() => Err(Exit::Stopped),
        };
        match started {
            Ok(resources) => Report {
                exit: self.work(resources).await,
                was_ready: true,
            },
            Err(exit) => Report {
                exit,
                was_ready: false,
            },
        }
    }

    /// Opens everything that must be there before the first delivery comes.
    async fn start(&self, server_failed: bool) -> Result<Resources, Exit> {
        let shared = &self.shared;
        let paused = shared.ledger.pause().await.map_err(Exit::Ledger)?;
        if let Some(fleet) = paused {
            return Err(Exit::Paused(fleet));
        }
        shared.ledger.probe().await.map_err(Exit::Ledger)?;
        shared.journal.open().await.map_err(Exit::Ledger)?;
        let connected = Broker::connect(&shared.settings, server_failed).await;
        let broker = Arc::new(connected.map_err(Exit::Broker)?);
        let opened = tokio::select! {
            opened = self.open(&broker) => opened,
            blocked = broker.blocked() => Err(blocked),
        };
        match opened {
            Ok(resources) => Ok(resources),
            Err(error) if error.is_blocked() => Err(self.await_unblocked(&broker, &error).await),
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
        if !self.topology_checked.load(Ordering::Relaxed) {
            if let Some(warning) = broker::assure(settings, alternate).await? {
                warn!(event = "alternate_exchange", "{warning}");
            }
            self.topology_checked.store(true, Ordering::Relaxed);
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
        let (copies, copy_senders) = CopyQueues::new(&self.shared, broker);
        let worker = |publisher| {
            let (shared, copies) = (self.shared.clone(), copies.clone());
            Worker::new(shared, broker.clone(), consumer.clone(), publisher, copies)
        };
        let workers = publishers.into_iter().map(worker).collect();
        Ok(Resources {
            broker: broker.clone(),
            consumer,
            workers,
            copy_senders,
        })
    }

    /// Runs the workers until one ends or the generation is to end, and winds down.
    async fn work(&self, resources: Resources) -> Exit {
        let Resources {
            broker,
            consumer,
            workers,
            copy_senders,
        } = resources;
        let status = &self.shared.telemetry.status;
        status.database(Ok(()));
        status.broker(true);
        status.consuming();
        let queue = self.shared.settings.topology.work_queue.as_str();
        info!(event = "ready", queue, workers = workers.len(), "ready");
        let mut copying = JoinSet::new();
        for sender in copy_senders {
            copying.spawn(sender.run());
        }
        let over = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for worker in workers {
            tasks.spawn(worker.run(over.clone()));
        }
        let exit = match self.watch(&mut tasks, &broker, &consumer, &over).await {
            Exit::Broker(error) => Exit::Broker(broker.cause(error).await),
            exit => exit,
        };
        let exit = self.of_stop(exit);
        // Tries that did not end by now end here, and are no crash. They are taken back before the
        // tasks are dropped, since a running statement would keep its connection busy. If that
        // fails, the next generation does it before it begins.
        let _ = timeout(WIND_DOWN, self.shared.journal.uncount()).await;
        tasks.shutdown().await;
        status.not_consuming();
        status.broker(false);
        // If this fails, settled messages are delivered again, and answered as before.
        let _ = timeout(WIND_DOWN, consumer.settle_the_rest()).await;
        if let Exit::Broker(error) = &exit
            && error.is_blocked()
        {
            copying.abort_all();
            return self.await_unblocked(&broker, error).await;
        }
        // The senders end once the workers are gone and every queued copy is sent.
        let sent = async { while copying.join_next().await.is_some() {} };
        let _ = timeout(WIND_DOWN, sent).await;
        copying.abort_all();
        broker.close().await;
        exit
    }

    /// Waits for the first reason to end, and then, within bounds, for the workers.
    async fn watch(
        &self,
        tasks: &mut JoinSet<Exit>,
        broker: &Broker,
        consumer: &Consumer,
        over: &CancellationToken,
    ) -> Exit {
        let mut exit = tokio::select! {
            first = tasks.join_next() => first.map_or(Exit::Stopped, |first| self.joined(first)),
            error = broker.blocked() => Exit::Broker(error),
            error = self.probe_while_idle(broker) => Exit::Broker(error),
            paused = operator_pause::requested(&self.shared) => match paused {
                Ok(fleet) => Exit::Paused(fleet),
                Err(error) => Exit::Ledger(error),
            },
            () = self.stop.cancelled() => Exit::Stopped,
        };
        let stopping = self.stop.is_cancelled();
        let limit = if exit.is_orderly() {
            self.shared.settings.worker.shutdown_timeout
        } else {
            // The batches in flight are finished; everything else is delivered again.
            over.cancel();
            WIND_DOWN
        };
        let rest = async {
            if !matches!(exit, Exit::Broker(_)) {
                // An orderly end finishes what was delivered. After any other, no further delivery
                // is to come.
                if let Err(error) = consumer.stop().await {
                    exit = Exit::Broker(error);
                }
                if stopping {
                    failpoint::hit(failpoint::STOPPING);
                }
            }
            while let Some(next) = tasks.join_next().await {
                exit = std::mem::replace(&mut exit, Exit::Stopped).worse(self.joined(next));
                if !exit.is_orderly() {
                    over.cancel();
                }
            }
        };
        let finished = timeout(limit, rest).await.is_ok();
        if self.stop.is_cancelled() && !finished && !is_server(&exit) {
            return Exit::Unfinished;
        }
        exit
    }

    /// The same exit, unless the process was told to stop: then no generation follows.
    fn of_stop(&self, exit: Exit) -> Exit {
        if !self.stop.is_cancelled() {
            return exit;
        }
        match exit {
            Exit::Stopped | Exit::Panicked | Exit::Unblocked | Exit::Paused(_) => Exit::Stopped,
            Exit::Unfinished => Exit::Unfinished,
            Exit::Ledger(error) => {
                let event = "database_unavailable";
                warn!(event, %error, "the database failed during the stop");
                Exit::Unfinished
            }
            Exit::Broker(error) => {
                let event = "broker_unavailable";
                warn!(event, %error, "the broker failed during the stop");
                Exit::Unfinished
            }
        }
    }

    /// The exit of a worker task. If it panicked, its batch is delivered again and counts as a
    /// crash.
    fn joined(&self, result: Result<Exit, JoinError>) -> Exit {
        result.unwrap_or_else(|error| {
            self.shared.journal.crashed();
            error!(
                event = "worker_panicked",
                %error,
                "a worker task panicked; this is a bug in revertd, please report it"
            );
            Exit::Panicked
        })
    }

    /// Waits until the broker takes messages again, with no message in flight. A stop ends the
    /// wait.
    async fn await_unblocked(&self, broker: &Broker, blocked: &BrokerError) -> Exit {
        error!(event = "broker_unavailable", error = %blocked, "paused: the broker");
        self.shared.telemetry.status.paused(Pause::Broker, &blocked);
        broker.stop_consuming().await;
        tokio::select! {
            () = broker.unblocked() => {}
            () = self.stop.cancelled() => {}
        }
        broker.close().await;
        Exit::Unblocked
    }

    /// Returns once the broker refuses messages. It says so only to a connection that publishes, so
    /// an idle generation probes.
    async fn probe_while_idle(&self, broker: &Broker) -> BrokerError {
        let mut publisher = None;
        loop {
            let settled = self.shared.settled();
            sleep(IDLE_PROBE).await;
            if self.shared.settled() != settled {
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

fn is_server(exit: &Exit) -> bool {
    matches!(exit, Exit::Ledger(_) | Exit::Broker(_))
}
