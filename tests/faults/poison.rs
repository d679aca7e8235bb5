//! Poison: random and mutated bodies, properties and headers, among valid requests.
//!
//! Each poison message must end where the contract says. No usage is reverted that a valid request
//! did not ask for, and the valid requests are answered as without poison.

mod bodies;
mod messages;
mod properties;
mod results;
mod tables;

use tokio::time::Instant;
use uuid::Uuid;

use self::messages::{PoisonGenerator, number};
use self::results::PoisonResults;
use crate::report::{full, report, seed};
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::raw::{RawConnection, RawMessage};
use crate::support::reconnect::RECOVERY;
use crate::support::*;

/// Messages in flight before their confirms are awaited.
const WINDOW: usize = 100;

/// Checks in a row that must find the queues empty. A message on the ladder is on a rung for longer
/// than lies between two checks.
const QUIET_LOOKS: usize = 12;

/// Of 1,000 poison messages, the number that no client can parse.
const UNREADABLE: u32 = 20;

#[tokio::test]
async fn poison_ends_as_it_must_and_harms_no_request() {
    let (count, others) = if full() {
        (50_000, 10_000)
    } else {
        (1500, 800)
    };
    let (env, seed) = (TestEnv::new().await, seed());
    let mut workers = vec![env.start_worker().await, env.start_worker().await];
    let load = Load::mixed(&env, seed, others).await;
    let poison = PoisonLoad::prepare(&env, seed, count).await;
    tokio::join!(load.publish(&env), poison.publish(&env));
    let mut collector = PoisonCollector::new(&env, &poison).await;
    collector.await_answers(&load).await;
    collector.await_quiet().await;
    for worker in &mut workers {
        let status = worker.stop().await;
        assert!(status.success(), "{status}");
    }
    collector.read_queues().await;
    collector.put_back().await;
    let mut findings = audit(&env, &load, Vec::new()).await;
    findings += collector.results.compare(&env, &poison).await;
    report("poison", 1, findings);
    env.teardown().await;
}

/// Poison messages. They are generated again for each reading, since all of them at once would need
/// too much memory.
pub struct PoisonLoad {
    count: usize,
    seed: u64,
    /// The account of the usages; no other request names it.
    account: Uuid,
    usages: Vec<Uuid>,
    user: String,
    /// A login that is not the worker's, if there is one.
    url: String,
    queue: String,
}

impl PoisonLoad {
    async fn prepare(env: &TestEnv, seed: u64, count: usize) -> Self {
        let customer = env.customer().await;
        let insert = "INSERT INTO billing_transactions (account_id, type, source, amount) \
            SELECT $1, 'debit', 'api.usage', 20 FROM generate_series(1, $2::bigint) RETURNING id";
        let usages = i64::try_from(count / 4).expect("small");
        let rows = env.db.query(insert, &[&customer.account, &usages]).await;
        // In the order of the rows, so that the same seed generates the same messages with other
        // ids.
        let usages = rows
            .expect("inserted")
            .iter()
            .map(|row| row.get(0))
            .collect();
        let servers = &env.servers;
        let url = servers.publisher.as_ref().unwrap_or(&servers.amqp);
        let login = url::Url::parse(url).expect("a URL");
        Self {
            count,
            seed,
            account: customer.account,
            usages,
            user: login.username().to_owned(),
            url: url.clone(),
            queue: env.name("dead"),
        }
    }

    fn generator(&self) -> PoisonGenerator<'_> {
        PoisonGenerator::new(
            self.seed,
            self.account,
            &self.usages,
            &self.user,
            &self.queue,
            UNREADABLE,
        )
    }

    async fn publish(&self, env: &TestEnv) {
        let mut raw = RawConnection::open(&self.url).await;
        let (mut generator, exchange) = (self.generator(), env.name("requests"));
        for number in 0..self.count {
            let poison = generator.generate(number);
            raw.publish(
                &exchange,
                &poison.routing_key,
                &poison.properties,
                &poison.body,
            )
            .await;
            if number % WINDOW == WINDOW - 1 {
                raw.confirmed().await;
            }
        }
        raw.confirmed().await;
    }
}

/// Reads the queues: poison as bytes, since no client can parse all of it; other messages are kept
/// unchanged.
struct PoisonCollector<'a> {
    env: &'a TestEnv,
    raw: RawConnection,
    results: PoisonResults,
    /// Other messages, each with the exchange that it came through.
    others: Vec<(&'static str, RawMessage)>,
}

impl<'a> PoisonCollector<'a> {
    async fn new(env: &'a TestEnv, poison: &PoisonLoad) -> Self {
        Self {
            env,
            raw: RawConnection::open(&env.servers.amqp).await,
            results: PoisonResults::new(poison),
            others: Vec::new(),
        }
    }

    /// Takes every message that is in the queues now.
    async fn read_queues(&mut self) {
        for last in ["replies", "dead"] {
            for message in self.raw.take_all(&self.env.name(last)).await {
                match number(&message.id()) {
                    Some(number) if last == "dead" => {
                        self.results.add_dead_letter(number, &message);
                    }
                    Some(number) => self.results.add_event(number, &message),
                    None => self.others.push((last, message)),
                }
            }
        }
    }

    /// Waits until every message has ended, or no more messages come.
    async fn await_answers(&mut self, load: &Load) {
        let mut deadline = Instant::now() + RECOVERY;
        let mut before = 0;
        loop {
            self.read_queues().await;
            let received = self.others.len() + self.results.received();
            // Every other request has an event, and some a dead letter as well. The audit checks
            // whether they are the right ones.
            if self.results.settled() && self.others_answered(load) {
                return;
            }
            if Instant::now() > deadline {
                println!("not answered in time: {:?}", self.results.unsettled());
                return;
            }
            if received > before {
                (before, deadline) = (received, Instant::now() + RECOVERY);
            }
        }
    }

    fn others_answered(&self, load: &Load) -> bool {
        let ids = |wanted: &'static str| {
            let of = self.others.iter().filter(move |(last, _)| *last == wanted);
            of.map(|(_, message)| message.id())
                .collect::<std::collections::HashSet<_>>()
        };
        let (told, dead) = (ids("replies"), ids("dead"));
        load.requests.iter().all(|sent| {
            let id = sent.request.correlation();
            told.contains(&id) && (!sent.kind.is_dead_lettered() || dead.contains(&id))
        })
    }

    /// Waits until no message is on its way back to a worker.
    async fn await_quiet(&mut self) {
        let mut quiet = 0;
        eventually("the queues stay empty", async || {
            let mut left = 0;
            for queue in self.env.waiting_queues() {
                left += self.env.depth(&queue).await;
            }
            quiet = if left == 0 { quiet + 1 } else { 0 };
            quiet == QUIET_LOOKS
        })
        .await;
    }

    /// Puts the other messages back unchanged.
    async fn put_back(&mut self) {
        for (index, (last, message)) in self.others.drain(..).enumerate() {
            let exchange = self.env.name(last);
            self.raw
                .publish(
                    &exchange,
                    &message.routing_key,
                    &message.properties,
                    &message.body,
                )
                .await;
            if index % WINDOW == WINDOW - 1 {
                self.raw.confirmed().await;
            }
        }
        self.raw.confirmed().await;
    }
}
