//! The reckoning after a load under faults: everything that can be seen is read to its end and compared.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::line::{Line, RECOVERY, reconnected, take_all};
use super::load::{Load, Nature};
use super::observed::{Told, legs, outcomes};
use super::serial::{Observed, check};
use super::worker::WorkerProcess;
use super::{Letter, Stage, with_database};

pub use super::report::{Count, Wrong};

/// Looks at the queues in a row that must find them empty. A message that climbs the ladder rests longer
/// on a rung than lies between two looks, and so is seen.
const QUIET_LOOKS: usize = 12;

/// Between two looks; less than the stage's shortest rung.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// Waits until everything is answered and the queues are drained, stops the workers, reads events and dead
/// letters to the end, and compares all with the model. Servers may have been restarted meanwhile.
pub async fn audit(stage: &Stage, load: &Load, workers: Vec<WorkerProcess>) -> Count {
    let mut audit = Audit {
        stage,
        line: Line::new(&stage.servers.amqp),
        events: HashMap::with_capacity(load.requests.len()),
        dead: HashMap::new(),
    };
    audit.await_answers(load).await;
    audit.await_quiet().await;
    let mut count = Count {
        requests: load.requests.len(),
        ..Count::default()
    };
    for mut worker in workers {
        let status = worker.stop().await;
        if !status.success() {
            count.found(Wrong::Other, format!("a worker ended with {status}"));
        }
    }
    audit.read_to_the_end().await;
    for (queue, left) in audit.left_behind().await {
        for _ in 0..left {
            count.found(Wrong::Unanswered, format!("a message is left in {queue}"));
        }
    }
    let db = reconnected(&with_database(&stage.servers.database, &stage.database)).await;
    audit.compare(load, &db, &mut count).await;
    count
}

struct Audit<'a> {
    stage: &'a Stage,
    line: Line,
    /// By correlation id, each once.
    events: HashMap<String, Vec<Told>>,
    dead: HashMap<String, Vec<Letter>>,
}

impl Audit<'_> {
    /// Reads events until each request has one, or none comes any more.
    async fn await_answers(&mut self, load: &Load) {
        let mut deadline = Instant::now() + RECOVERY;
        loop {
            let before = self.events.len();
            self.read("replies").await;
            self.read("dead").await;
            let answered = |sent: &super::load::Sent| {
                let correlation = sent.request.correlation();
                self.events.contains_key(&correlation)
                    && (!sent.nature.is_dead_lettered() || self.dead.contains_key(&correlation))
            };
            if load.requests.iter().all(answered) || Instant::now() > deadline {
                return;
            }
            if self.events.len() > before {
                deadline = Instant::now() + RECOVERY;
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until nothing is on its way, or something stays.
    async fn await_quiet(&mut self) {
        let deadline = Instant::now() + RECOVERY;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && Instant::now() < deadline {
            let busy = self.left_behind().await.iter().any(|(_, left)| *left > 0);
            quiet = if busy { 0 } else { quiet + 1 };
            sleep(LOOK).await;
        }
    }

    /// Messages in the work queue and on the rungs. Those in a worker's hands show only when it is gone.
    async fn left_behind(&mut self) -> Vec<(String, u32)> {
        let mut left = Vec::new();
        for queue in self.stage.waiting_queues() {
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
        self.line.insist(queue, depth).await
    }

    /// The workers are gone: what they held is back in its queue, and nothing comes any more.
    async fn read_to_the_end(&mut self) {
        for last in ["replies", "dead"] {
            let queue = self.stage.name(last);
            while self.depth(&queue).await > 0 {
                self.read(last).await;
            }
        }
        let work = self.stage.name("work");
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let gone = async |channel: &lapin::Channel| {
            let declared = channel
                .queue_declare(work.as_str().into(), passive, FieldTable::default())
                .await?;
            match declared.consumer_count() {
                0 => Ok(()),
                _ => Err(std::io::Error::other("the queue still has consumers").into()),
            }
        };
        self.line
            .insist("the workers' consumers are gone", gone)
            .await;
    }

    /// Takes what is in a queue at present. It is acknowledged only when it is here, so that a broker
    /// that fails meanwhile delivers it again; that it came twice then makes no difference.
    async fn read(&mut self, last: &str) {
        let queue = self.stage.name(last);
        let letters = Mutex::new(Vec::new());
        let take = async |channel: &lapin::Channel| take_all(channel, &queue, &letters).await;
        self.line.insist("a queue is read", take).await;
        for letter in letters.into_inner().expect("nobody panics with it") {
            let correlation = letter.correlation().unwrap_or("without a correlation id");
            if last == "dead" {
                let dead = self.dead.entry(correlation.to_owned()).or_default();
                dead.push(letter);
                continue;
            }
            let known = self.events.entry(correlation.to_owned()).or_default();
            let told = Told {
                routing_key: letter.routing_key,
                body: letter.body,
            };
            if !known.contains(&told) {
                known.push(told);
            }
        }
    }

    async fn compare(&self, load: &Load, db: &Client, count: &mut Count) {
        let none = Vec::new();
        let (mut asked, mut events) = (Vec::new(), Vec::new());
        for sent in &load.requests {
            let correlation = sent.request.correlation();
            let told = self.events.get(&correlation).unwrap_or(&none);
            let dead = self.dead.contains_key(&correlation);
            match &sent.nature {
                Nature::Asked(request) => {
                    asked.push(request);
                    events.push(told.clone());
                    if dead {
                        let text = format!("{request:?} is in the dead-letter queue");
                        count.found(Wrong::Other, text);
                    }
                }
                Nature::Invalid(fields) => {
                    for told in told {
                        compare_invalid(told, fields, count);
                    }
                }
                Nature::Malformed | Nature::Unread => {
                    let reason = if sent.nature == Nature::Unread {
                        "RETRIES_EXHAUSTED"
                    } else {
                        "MALFORMED_REQUEST"
                    };
                    for told in told {
                        compare_reason(told, "usage.revert.failed", reason, count);
                    }
                    if !dead {
                        let text = format!("{correlation} is {reason}, and no dead letter");
                        count.found(Wrong::Lost, text);
                    }
                }
            }
            if told.is_empty() {
                count.found(
                    Wrong::Unanswered,
                    format!("{correlation}: {:?}", sent.nature),
                );
            }
        }
        let (outcomes, legs) = (outcomes(db, &load.world).await, legs(db, &load.world).await);
        let stored: HashSet<_> = outcomes
            .iter()
            .map(|outcome| (&outcome.message_id, outcome.usage, outcome.amount))
            .collect();
        for (request, told) in asked.iter().zip(&events) {
            let content = &request.content;
            let is_stored = stored.contains(&(&request.message_id, content.usage, content.amount));
            if told.is_empty() && !is_stored {
                count.found(Wrong::Lost, format!("{request:?}"));
            }
        }
        let observed = Observed {
            world: &load.world,
            asked: &asked,
            events: &events,
            outcomes: &outcomes,
            legs: &legs,
        };
        *count += check(&observed).count;
        let ours: HashSet<_> = load
            .requests
            .iter()
            .map(|sent| sent.request.correlation())
            .collect();
        for stranger in self.events.keys().filter(|id| !ours.contains(*id)) {
            count.found(
                Wrong::Other,
                format!("an event that nobody asked for: {stranger}"),
            );
        }
    }
}

/// Row 3: the fields are named, each once or more.
fn compare_invalid(told: &Told, fields: &[&str], count: &mut Count) {
    let event = compare_reason(told, "usage.revert.rejected", "INVALID_FIELD", count);
    let violations = event["data"]["error"]["details"][1]["fieldViolations"].as_array();
    let mut named: Vec<_> = violations
        .into_iter()
        .flatten()
        .filter_map(|violation| violation["field"].as_str())
        .collect();
    named.dedup();
    if named != fields {
        count.found(
            Wrong::Differing,
            format!("{event} names {named:?}, not {fields:?}"),
        );
    }
}

fn compare_reason(told: &Told, kind: &str, reason: &str, count: &mut Count) -> serde_json::Value {
    let event: serde_json::Value = serde_json::from_slice(&told.body).unwrap_or_default();
    let error = &event["data"]["error"];
    let seen = (
        &event["type"],
        &error["code"],
        &error["details"][0]["reason"],
    );
    if seen != (&kind.into(), &3.into(), &reason.into()) {
        count.found(Wrong::Differing, format!("{event} is not {reason}"));
    }
    event
}
