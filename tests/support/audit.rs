//! The audit after a load under faults: reads every event and dead letter, and compares them.

use std::sync::Mutex;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::collected::Collected;
use super::load::{Load, Sent, event_key};
use super::observed::ObservedEvent;
use super::reconnect::{RECOVERY, ReconnectingChannel, drain_queue, reconnect_db};
use super::worker::WorkerProcess;
use super::{TestEnv, with_database};

pub use super::report::{AuditResult, Finding};

/// Looks at the queues in a row that must find them empty. A message that climbs the ladder rests
/// longer on a rung than lies between two looks, and so is seen.
const QUIET_LOOKS: usize = 12;

/// How long consumers may stay after their processes are gone.
const GONE: std::time::Duration = std::time::Duration::from_secs(30);

/// Most workers that are started to finish the remaining messages.
const SUCCESSORS: usize = 5;

/// Between two looks; less than the environment's shortest rung.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// Waits until everything is answered and the queues are drained, stops the workers, reads events
/// and dead letters to the end, and compares all with the model. Servers may have been restarted
/// meanwhile.
pub async fn audit(env: &TestEnv, load: &Load, workers: Vec<WorkerProcess>) -> AuditResult {
    let collected = collect(env, load, workers).await;
    let url = with_database(&env.servers.database, &env.database);
    collected
        .compare_with_model(load, &reconnect_db(&url).await)
        .await
}

/// [`audit`] without the comparison.
pub async fn collect(env: &TestEnv, load: &Load, workers: Vec<WorkerProcess>) -> Collected {
    let mut audit = Audit::of(env);
    audit.await_answers(load).await;
    audit.collect(workers).await
}

/// The steps of [`collect`], for a test that acts between them.
pub struct Audit<'a> {
    env: &'a TestEnv,
    broker: ReconnectingChannel,
    collected: Collected,
}

impl<'a> Audit<'a> {
    pub fn of(env: &'a TestEnv) -> Self {
        Self {
            env,
            broker: ReconnectingChannel::new(&env.servers.amqp),
            collected: Collected::default(),
        }
    }

    /// Reads events until each request has one, or none comes any more. Whether each has.
    pub async fn await_answers(&mut self, load: &Load) -> bool {
        let mut deadline = Instant::now() + RECOVERY;
        loop {
            let before = self.collected.events.len();
            self.read("replies").await;
            self.read("dead").await;
            let answered = |sent: &Sent| {
                let correlation = sent.request.correlation();
                let mut parts = sent.parts().into_iter();
                parts.all(|(key, _)| self.collected.events.contains_key(&key))
                    && (!sent.kind.is_dead_lettered()
                        || self.collected.dead.contains_key(&correlation))
            };
            if load.requests.iter().all(answered) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            if self.collected.events.len() > before {
                deadline = Instant::now() + RECOVERY;
            }
            sleep(LOOK).await;
        }
    }

    /// Reads the remaining messages until the queues are drained and the workers have ended.
    pub async fn collect(mut self, workers: Vec<WorkerProcess>) -> Collected {
        self.await_quiet().await;
        self.stop(workers).await;
        // Messages in flight were not counted, also those of a connection that the broker believes
        // to be open. A stop may put them on a rung or requeue them. The next worker finishes them.
        for _ in 0..SUCCESSORS {
            self.consumers_gone().await;
            if self.is_quiet().await {
                break;
            }
            let successor = self.env.start_worker().await;
            self.await_quiet().await;
            self.stop(vec![successor]).await;
        }
        self.read_to_the_end().await;
        for (queue, left) in self.left_behind().await {
            for _ in 0..left {
                let text = format!("a message is left in {queue}");
                self.collected.count.found(Finding::Unanswered, text);
            }
        }
        self.collected
    }

    async fn stop(&mut self, workers: Vec<WorkerProcess>) {
        for mut worker in workers {
            let status = worker.stop().await;
            if !status.success() {
                let text = format!("a worker ended with {status}");
                self.collected.count.found(Finding::Other, text);
            }
        }
    }

    async fn is_quiet(&mut self) -> bool {
        self.left_behind().await.iter().all(|(_, left)| *left == 0)
    }

    /// Waits until the queues stay empty, or the deadline passes.
    async fn await_quiet(&mut self) {
        let deadline = Instant::now() + RECOVERY;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && Instant::now() < deadline {
            quiet = if self.is_quiet().await { quiet + 1 } else { 0 };
            sleep(LOOK).await;
        }
    }

    /// Messages in the work queue and on the rungs. Messages in flight are counted only after their
    /// worker has ended.
    async fn left_behind(&mut self) -> Vec<(String, u32)> {
        let mut left = Vec::new();
        for queue in self.env.waiting_queues() {
            left.push((queue.clone(), self.depth(&queue).await));
        }
        left
    }

    async fn depth(&mut self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let depth = async |channel: &lapin::Channel| {
            let declared = channel
                .queue_declare(queue.into(), passive, FieldTable::default())
                .await?;
            Ok(declared.message_count())
        };
        self.broker.retry(queue, depth).await
    }

    async fn read_to_the_end(&mut self) {
        for last in ["replies", "dead"] {
            let queue = self.env.name(last);
            while self.depth(&queue).await > 0 {
                self.read(last).await;
            }
        }
    }

    /// Waits until the consumers are gone, because their messages are then back in the queue. A
    /// cluster may count the consumers of a killed node for long; a message that they hold shows as
    /// a request without an answer.
    async fn consumers_gone(&mut self) {
        let deadline = Instant::now() + GONE;
        while self.env.consumers().await > 0 && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }

    /// Takes the messages that are in a queue at present. A message is acknowledged after it is
    /// stored here, so a broker that fails meanwhile delivers it again, which does no harm.
    async fn read(&mut self, last: &str) {
        let queue = self.env.name(last);
        let letters = Mutex::new(Vec::new());
        let take = async |channel: &lapin::Channel| drain_queue(channel, &queue, &letters).await;
        self.broker.retry("a queue is read", take).await;
        for letter in letters.into_inner().expect("nobody panics with it") {
            let correlation = letter.correlation().unwrap_or("without a correlation id");
            if last == "dead" {
                let dead = self
                    .collected
                    .dead
                    .entry(correlation.to_owned())
                    .or_default();
                dead.push(letter);
                continue;
            }
            for body in events_of(&letter.body) {
                let told = ObservedEvent {
                    routing_key: letter.routing_key.clone(),
                    body,
                };
                let key = event_key(correlation, &told.body);
                self.collected.add_event(key, told, &queue);
            }
        }
    }
}

/// The events of a message, byte for byte: one, or those of a batch.
fn events_of(body: &[u8]) -> Vec<Vec<u8>> {
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(events) => events
            .iter()
            .map(|event| event.get().as_bytes().to_vec())
            .collect(),
        Err(_) => vec![body.to_vec()],
    }
}
