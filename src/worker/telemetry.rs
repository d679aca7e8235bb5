//! The telemetry of the workers: counters, durations, status, spans, and the server that shows
//! them.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::broker;
use crate::broker::Depths;
use crate::config::Settings;
use crate::domain::refusal::{FailureReason, OTHER_REASON, RefusalReason};
use crate::ledger::Ledger;
use crate::telemetry;
use crate::telemetry::{
    Connections, Counters, Exporting, Listening, Names, ProcessStatus, QueueDepth, QueueKind,
    TelemetryError, Times, Traces,
};

/// The time without a statement after which the database is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The time between two polls of the queues' depths.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The records of the workers.
pub struct WorkerTelemetry {
    pub counters: Counters,
    pub times: Times,
    pub status: ProcessStatus,
    pub traces: Option<Traces>,
}

/// The server of `telemetry.listen` and the exporter to `telemetry.otlp_endpoint`.
pub struct TelemetryServer {
    listening: Option<Listening>,
    exporting: Option<Exporting>,
}

impl WorkerTelemetry {
    /// Serves on `telemetry.listen` and exports to `telemetry.otlp_endpoint`, where they are set.
    pub fn open(
        settings: &Settings,
        ledger: &Ledger,
        stop: &CancellationToken,
    ) -> Result<(Self, TelemetryServer), TelemetryError> {
        let mut registry = telemetry::registry("worker");
        let queue = settings.topology.work_queue.as_str();
        let counters = Counters::new(&mut registry, names(settings));
        let times = Times::new(&mut registry, queue);
        let of_pool = ledger.clone();
        let status = ProcessStatus::new(move || {
            let pool = of_pool.connections();
            Connections {
                used: pool.size - pool.idle,
                idle: pool.idle,
                max: pool.max,
                waiting: pool.waiting,
            }
        });
        registry.register_collector(Box::new(status.clone()));
        let exporting = match &settings.telemetry.otlp_endpoint {
            Some(endpoint) => Some(Exporting::start(
                endpoint.as_str(),
                counters.exports_failed(),
            )?),
            None => None,
        };
        let traces = exporting
            .as_ref()
            .map(|exporting| Traces::new(exporting, queue));
        let listening = match settings.telemetry.listen {
            Some(address) => {
                let (asked, stop) = (status.clone(), stop.clone());
                let readiness = move || {
                    if stop.is_cancelled() {
                        return Err("stopping: messages in flight are settled first".into());
                    }
                    asked.readiness()
                };
                Some(telemetry::listen(address.0, registry, readiness)?)
            }
            None => None,
        };
        let server = TelemetryServer {
            listening,
            exporting,
        };
        let telemetry = Self {
            counters,
            times,
            status,
            traces,
        };
        Ok((telemetry, server))
    }
}

impl TelemetryServer {
    /// Polls the database and the queues, if the result is shown. Never returns.
    pub async fn poll(
        &self,
        settings: &Settings,
        ledger: &Ledger,
        status: &ProcessStatus,
    ) -> Infallible {
        if self.listening.is_some() {
            tokio::join!(ask_database(ledger, status), poll_queues(settings, status));
        }
        std::future::pending().await
    }

    /// Exports the remaining spans.
    pub async fn close(self) {
        if let Some(exporting) = self.exporting {
            exporting.stop().await;
        }
    }
}

/// Asks whether the database answers, unless a batch showed it.
async fn ask_database(ledger: &Ledger, status: &ProcessStatus) {
    loop {
        if !status.database_answered_within(ASK_EVERY) {
            match ledger.answers(ASK_EVERY).await {
                Ok(()) => status.database(Ok(())),
                Err(error) => status.database(Err(&error)),
            }
        }
        sleep(ASK_EVERY).await;
    }
}

async fn poll_queues(settings: &Settings, status: &ProcessStatus) {
    let mut depths = Depths::new(&settings.amqp.url);
    let configured = queues(settings);
    let mut others = Vec::new();
    loop {
        match broker::other_rungs(settings).await {
            Ok(found) => others = found,
            Err(error) => debug!(%error, "not seen"),
        }
        let max_bytes = settings.topology.retry_queue_max_bytes.bytes();
        let others = others
            .iter()
            .map(|name| depth(name, QueueKind::Retry, max_bytes));
        let mut queues: Vec<_> = configured.iter().cloned().chain(others).collect();
        let names: Vec<_> = queues.iter().map(|queue| queue.queue.clone()).collect();
        let seen = depths.look(&names).await;
        status.broker_answered(seen.is_ok());
        let seen = seen.unwrap_or_else(|error| {
            debug!(%error, "the queues can't be looked at");
            vec![None; names.len()]
        });
        for (queue, messages) in queues.iter_mut().zip(seen) {
            queue.messages = messages;
        }
        status.queues(queues);
        sleep(LOOK_EVERY).await;
    }
}

fn queues(settings: &Settings) -> Vec<QueueDepth> {
    let topology = &settings.topology;
    let retry = topology.retry_queue_max_bytes.bytes();
    let rungs = settings.retry_queues();
    let rungs = rungs
        .iter()
        .map(|name| depth(name, QueueKind::Retry, retry));
    let work = topology.work_queue_max_bytes.bytes();
    let dead = topology.dead_letter_queue_max_bytes.bytes();
    let named = [
        depth(topology.work_queue.as_str(), QueueKind::Work, work),
        depth(
            topology.dead_letter_queue.as_str(),
            QueueKind::DeadLetter,
            dead,
        ),
    ];
    named.into_iter().chain(rungs).collect()
}

fn depth(name: &str, kind: QueueKind, max_bytes: u64) -> QueueDepth {
    QueueDepth {
        queue: name.into(),
        kind,
        max_bytes,
        messages: None,
    }
}

fn names(settings: &Settings) -> Names {
    let topology = &settings.topology;
    Names {
        work_queue: topology.work_queue.to_string(),
        reply_exchange: topology.reply_exchange.to_string(),
        dead_letter_exchange: topology.dead_letter_exchange.to_string(),
        retry_queues: settings.retry_queues(),
        rungs: settings
            .retry
            .delays
            .iter()
            .map(ToString::to_string)
            .collect(),
        rejected: [RefusalReason::names(), vec![OTHER_REASON]].concat(),
        dead_lettered: FailureReason::names(),
    }
}
