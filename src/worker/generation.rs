//! One generation of the pool: what it needs, its workers, its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batch::Worker;
use super::replies::{DirectReplies, Replies};
use super::{Beginning, End, Pace, Pool, WorkerError};
use crate::broker::{Broker, BrokerError};

/// How long the others of a failed generation may finish what they have in hand.
const WIND_DOWN: Duration = Duration::from_secs(5);

impl Pool {
    /// One generation, from what the one before left to its end.
    pub(super) async fn generation(
        &self,
        beginning: &Beginning,
        ready: &mut bool,
    ) -> Result<End, WorkerError> {
        let started = tokio::select! {
            started = self.start(beginning) => started,
            () = self.stop.cancelled() => return Ok(End::Stopped),
        };
        let (broker, workers, direct) = match started {
            Ok(started) => started,
            Err(end) => return Ok(end),
        };
        *ready = true;
        let settings = &self.shared.settings;
        match beginning.pace {
            Pace::Full => info!(
                queue = settings.topology.work_queue.as_str(),
                workers = workers.len(),
                "ready"
            ),
            Pace::Careful => info!("ready, one delivery at a time"),
        }
        let drain = CancellationToken::new();
        let direct = tokio::spawn(direct.run());
        let mut tasks = JoinSet::new();
        for worker in workers {
            tasks.spawn(worker.run(drain.clone()));
        }
        let mut workers = Vec::new();
        let ended = match self.watch(&mut tasks, &mut workers, &drain).await {
            Ok(End::Broker(wrong)) => Ok(End::Broker(broker.cause(wrong).await)),
            ended => ended,
        };
        tasks.shutdown().await;
        // Only now do their channels close: no consumer is left to take what they return.
        drop(workers);
        // It ends once the workers are gone and what they left is sent.
        let _ = timeout(WIND_DOWN, direct).await;
        broker.close().await;
        ended
    }

    /// Everything a generation needs, in the order in which it must be there before a delivery comes.
    async fn start(
        &self,
        beginning: &Beginning,
    ) -> Result<(Arc<Broker>, Vec<Worker>, DirectReplies), End> {
        let settings = &self.shared.settings;
        self.shared
            .ledger
            .rehearse(&beginning.held)
            .await
            .map_err(|wrong| End::Ledger(wrong, beginning.held.clone()))?;
        let broker = Arc::new(Broker::connect(settings).await.map_err(End::Broker)?);
        match self.open(&broker, beginning).await {
            Ok((workers, direct)) => Ok((broker, workers, direct)),
            Err(wrong) => {
                let cause = broker.cause(wrong).await;
                broker.close().await;
                Err(End::Broker(cause))
            }
        }
    }

    async fn open(
        &self,
        broker: &Arc<Broker>,
        beginning: &Beginning,
    ) -> Result<(Vec<Worker>, DirectReplies), BrokerError> {
        let settings = &self.shared.settings;
        let pace = beginning.pace;
        let (concurrency, prefetch) = match pace {
            Pace::Full => (settings.worker.concurrency, settings.prefetch()),
            Pace::Careful => (1, 1),
        };
        if !beginning.topology_checked {
            broker.ensure_topology(settings).await?;
        }
        let (sender, direct) = DirectReplies::new(self.shared.clone(), broker.clone());
        let mut workers = Vec::new();
        for _ in 0..concurrency {
            let outlet = broker.outlet().await?;
            if workers.is_empty() {
                outlet.probe().await?;
            }
            let queue = settings.topology.work_queue.as_str();
            let inlet = broker.inlet(queue, prefetch).await?;
            let replies = Replies::new(self.shared.clone(), broker.clone(), sender.clone());
            let shared = self.shared.clone();
            workers.push(Worker::new(shared, inlet, outlet, replies, pace));
        }
        Ok((workers, direct))
    }

    /// Waits for the first worker to end, or for the stop; then for the others, within bounds.
    async fn watch(
        &self,
        tasks: &mut JoinSet<(End, Worker)>,
        ended: &mut Vec<Worker>,
        drain: &CancellationToken,
    ) -> Result<End, WorkerError> {
        let first = tokio::select! {
            first = tasks.join_next() => first,
            () = self.stop.cancelled() => None,
        };
        drain.cancel();
        let mut end = first.map_or(End::Stopped, |first| joined(first, ended));
        let stopping = self.stop.is_cancelled() && matches!(end, End::Stopped);
        let patience = if stopping {
            self.shared.settings.worker.shutdown_timeout
        } else {
            WIND_DOWN
        };
        let rest = async {
            while let Some(next) = tasks.join_next().await {
                end = worse(
                    std::mem::replace(&mut end, End::Stopped),
                    joined(next, ended),
                );
            }
        };
        let finished = timeout(patience, rest).await.is_ok();
        if !self.stop.is_cancelled() {
            return Ok(end);
        }
        match end {
            End::Stopped | End::Repaced(_) if finished => Ok(End::Stopped),
            End::Stopped | End::Repaced(_) => Err(WorkerError::Unfinished),
            End::Ledger(wrong, _) => {
                warn!(reason = %wrong, "the database failed during the stop");
                Err(WorkerError::Unfinished)
            }
            End::Broker(wrong) => {
                warn!(reason = %wrong, "the broker failed during the stop");
                Err(WorkerError::Unfinished)
            }
        }
    }
}

/// A worker that panicked met a bug: what it had in hand is delivered again, one at a time.
fn joined(result: Result<(End, Worker), JoinError>, ended: &mut Vec<Worker>) -> End {
    match result {
        Ok((end, worker)) => {
            ended.push(worker);
            end
        }
        Err(bug) => {
            error!(%bug, "a worker broke off; this is a fault in revertd, please report it");
            End::Repaced(Pace::Careful)
        }
    }
}

/// The end that says more about what to do next.
fn worse(one: End, other: End) -> End {
    let rank = |end: &End| match end {
        End::Stopped => 0,
        End::Repaced(Pace::Full) => 1,
        End::Broker(wrong) if !wrong.is_unparseable() => 2,
        End::Ledger(..) => 3,
        End::Repaced(Pace::Careful) => 4,
        End::Broker(_) => 5,
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
    }
}
