//! Several writers that decide the batches of one history at the same time, and the comparison of
//! their outcomes with the model.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use revertd::config::Settings;
use revertd::domain::disposition::{Disposition, Reading, dispose, read};
use revertd::domain::request::Envelope;
use revertd::ledger::Ledger;
use tokio::runtime::{Builder, Runtime};

use super::model::{Case, Id, Kind, WRITERS};
use crate::support::TestEnv;
use crate::support::initial_ledger::{Kind as Posted, Posting};
use crate::support::ledger_generator::{LedgerGenerator, named};
use crate::support::model::{Content, Policy, ValidRequest};
use crate::support::observed::{ObservedEvent, legs, outcomes};
use crate::support::report::{AuditResult, Finding};
use crate::support::request_bodies::encode;
use crate::support::serializability::{Observed, check};

/// Attempts at a request after which its writer gives up.
const ATTEMPTS: u32 = 20;

/// A database, and writers for each policy.
pub struct Writers {
    runtime: Runtime,
    env: TestEnv,
    once: Vec<Writer>,
    cumulative: Vec<Writer>,
}

/// The settings and the pool of one process.
#[derive(Clone)]
struct Writer {
    settings: Arc<Settings>,
    ledger: Ledger,
}

/// A delivery: the ask's index, its envelope and its body in one of its spellings.
#[derive(Clone)]
struct Delivery {
    ask: usize,
    envelope: Envelope,
    body: Vec<u8>,
}

impl Writers {
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WRITERS)
            .enable_all()
            .build()
            .expect("a runtime");
        let env = runtime.block_on(TestEnv::new());
        let writers = |policy: &str| {
            let mut environment = env.environment();
            for (key, value) in [
                ("REVERTD_REVERT__POLICY", policy),
                ("REVERTD_REVERT__MAX_AGE", "720h"),
                // Writers wait for each other here, however long that takes.
                ("REVERTD_DATABASE__LOCK_TIMEOUT", "30s"),
                ("REVERTD_RETRY__USAGE_NOT_FOUND_ATTEMPTS", "1"),
            ] {
                environment.push((key.into(), value.into()));
            }
            let settings = Arc::new(Settings::load_from(None, environment).expect("valid"));
            let writer = || Writer {
                settings: settings.clone(),
                ledger: Ledger::new(&settings).expect("an address"),
            };
            (0..WRITERS).map(|_| writer()).collect()
        };
        Self {
            once: writers("once"),
            cumulative: writers("cumulative"),
            runtime,
            env,
        }
    }

    pub fn done(self) {
        drop((self.once, self.cumulative));
        self.runtime.block_on(self.env.teardown());
    }

    /// Runs a case in an empty ledger, and compares the results with the model.
    pub fn run(&self, case: &Case) -> AuditResult {
        self.runtime.block_on(async {
            self.env
                .sql(
                    "DELETE FROM revertd.outcomes; DELETE FROM billing_transactions; \
                     DELETE FROM billing_customers; DELETE FROM projects; DELETE FROM \
                     organizations",
                )
                .await;
            let mut generator = LedgerGenerator::new(case.policy, case.seed);
            let asked = ask(case, &mut generator);
            generator.ledger.insert(&self.env.db).await;
            let batches = batches(case, &asked, &mut generator);
            let writers = match case.policy {
                Policy::Once => &self.once,
                Policy::Cumulative => &self.cumulative,
            };
            let mut count = AuditResult {
                requests: asked.len(),
                ..AuditResult::default()
            };
            let working = batches
                .iter()
                .zip(writers)
                .map(|(batches, writer)| tokio::spawn(work(writer.clone(), batches.clone())));
            let mut events = vec![Vec::new(); asked.len()];
            for told in join_all(working).await {
                for (ask, event) in told.expect("a writer does not panic") {
                    match event {
                        Ok(told) => events[ask].push(told),
                        Err(failure) => {
                            let text = format!("{:?} failed: {failure}", asked[ask]);
                            count.found(Finding::Other, text);
                        }
                    }
                }
            }
            for (asked, told) in asked.iter().zip(&events) {
                if told.is_empty() {
                    count.found(Finding::Unanswered, format!("{asked:?}"));
                }
            }
            let db = &self.env.db;
            let checked = check(&Observed {
                ledger: &generator.ledger,
                asked: &asked.iter().collect::<Vec<_>>(),
                groups: &[],
                events: &events,
                outcomes: &outcomes(db, &generator.ledger).await,
                legs: &legs(db, &generator.ledger).await,
            });
            count += checked.count;
            check_delivery_order(&asked, &batches, &checked.places, &mut count);
            count
        })
    }
}

/// Draws the ledger, and the requests.
fn ask(case: &Case, generator: &mut LedgerGenerator) -> Vec<ValidRequest> {
    let mut plain: Vec<Content> = Vec::new();
    for usage in &case.usages {
        let id = generator.usage_of(usage.amount);
        let content = generator.content(id, usage.amount);
        let (account, elsewhere) = (generator.account(), generator.id());
        let posting = generator.ledger.postings.get_mut(&id).expect("made above");
        let owner = posting.account;
        let other = |id| {
            let account = crate::support::initial_ledger::Account { id, ..account };
            named(account, content.usage, usage.amount)
        };
        plain.push(match usage.kind {
            Kind::Plain => content,
            Kind::Closed => {
                posting.kind = Posted::Usage { closed: true };
                content
            }
            Kind::PartlyGivenBack => {
                let parts = [(usage.amount / 3).max(1), usage.amount / 4];
                let several = if parts[1] > 0 { 2 } else { 1 };
                let ids = [generator.id(), generator.id()];
                generator.ledger.give_back(id, &parts[..several], &ids);
                content
            }
            Kind::Purchase => {
                *posting = Posting::purchase(owner, usage.amount);
                other(owner)
            }
            Kind::FrontiersRevert => {
                *posting = Posting::revert(owner, elsewhere, &id.to_string(), usage.amount);
                other(owner)
            }
            Kind::Unknown => {
                let content = other(owner);
                generator.ledger.postings.remove(&id);
                content
            }
            Kind::OfAnotherAccount => other(
                generator
                    .ledger
                    .accounts
                    .iter()
                    .map(|account| account.id)
                    .find(|id| *id != owner)
                    .expect("several"),
            ),
            Kind::WithoutAccount => other(generator.ledger.deleted[0].id),
        });
    }
    let mut asked = Vec::with_capacity(case.asks.len());
    for ask in &case.asks {
        let mut content = Content {
            amount: ask.amount,
            ..ask.usage.get(&plain).clone()
        };
        if ask.reason {
            content.reason = Some("asked twice".into());
        }
        asked.push(ValidRequest {
            client: if ask.client { "desk" } else { "" }.into(),
            message_id: match ask.id {
                Id::None => None,
                Id::Own => Some(generator.id().to_string()),
                Id::Shared(n) => Some(format!("shared {n}")),
            },
            content,
        });
    }
    asked
}

/// The deliveries of each writer, in batches.
fn batches(
    case: &Case,
    asked: &[ValidRequest],
    generator: &mut LedgerGenerator,
) -> Vec<Vec<Vec<Delivery>>> {
    let mut order: Vec<usize> = (0..asked.len()).collect();
    for (which, place) in &case.again {
        order.insert(place.index(order.len() + 1), which.index(asked.len()));
    }
    let mut queues = vec![VecDeque::new(); WRITERS];
    for (ask, writer) in order.into_iter().zip(case.writers.iter().cycle()) {
        let envelope = Envelope {
            client: asked[ask].client.clone(),
            message_id: asked[ask].message_id.clone(),
            ..Envelope::default()
        };
        let body = encode(&asked[ask].content, &mut generator.rng);
        queues[*writer].push_back(Delivery {
            ask,
            envelope,
            body,
        });
    }
    let mut sizes = case.batches.iter().cycle();
    let cut = |mut queue: VecDeque<Delivery>| {
        let mut batches = Vec::new();
        while !queue.is_empty() {
            let size = (*sizes.next().expect("never empty")).min(queue.len());
            batches.push(queue.drain(..size).collect());
        }
        batches
    };
    queues.into_iter().map(cut).collect()
}

/// Decides the batches one after another. Requests to retry form one more batch.
async fn work(
    writer: Writer,
    batches: Vec<Vec<Delivery>>,
) -> Vec<(usize, Result<ObservedEvent, String>)> {
    let (mut told, ladder) = (Vec::new(), writer.settings.ladder());
    let limits = writer.settings.amqp.request_limits();
    let mut batches = VecDeque::from(batches);
    while let Some(batch) = batches.pop_front() {
        let mut requests = Vec::with_capacity(batch.len());
        for delivery in &batch {
            let now = Timestamp::now();
            match read(
                &delivery.envelope,
                &delivery.body,
                &limits,
                false,
                &ladder,
                now,
            ) {
                Reading::Request(request) => requests.push(request),
                other @ (Reading::Group(_) | Reading::Done(_)) => panic!("{other:?}"),
            }
        }
        let decisions = writer.ledger.apply(&requests).await;
        let decisions = decisions.expect("the database is there");
        let mut again = Vec::new();
        for ((mut delivery, request), decision) in batch.into_iter().zip(&requests).zip(&decisions)
        {
            let (envelope, now) = (&delivery.envelope, Timestamp::now());
            match dispose(envelope, &delivery.body, request, decision, &ladder, now) {
                Disposition::Answer(event) => {
                    let (routing_key, body) = (event.routing_key, event.body);
                    told.push((delivery.ask, Ok(ObservedEvent { routing_key, body })));
                }
                Disposition::Retry { .. } if delivery.envelope.attempts < ATTEMPTS => {
                    delivery.envelope.attempts += 1;
                    again.push(delivery);
                }
                failed @ (Disposition::Retry { .. }
                | Disposition::AwaitTrust { .. }
                | Disposition::Wait { .. }
                | Disposition::Returned
                | Disposition::DeadLetter { .. }) => {
                    told.push((delivery.ask, Err(format!("{failed:?}"))));
                }
            }
        }
        if !again.is_empty() {
            batches.push_back(again);
        }
    }
    told
}

/// Requests of one writer on one usage are decided in delivery order. Only requests count that were
/// delivered once and share their id with no other: the rest may have been decided elsewhere.
fn check_delivery_order(
    asked: &[ValidRequest],
    batches: &[Vec<Vec<Delivery>>],
    places: &[Option<usize>],
    count: &mut AuditResult,
) {
    let mut uses: HashMap<_, usize> = HashMap::new();
    let identity = |asked: &ValidRequest| match &asked.message_id {
        Some(id) => (asked.client.clone(), Some(id.clone()), None),
        None => (asked.client.clone(), None, Some(asked.content.clone())),
    };
    for delivery in batches.iter().flatten().flatten() {
        *uses.entry(identity(&asked[delivery.ask])).or_default() += 1;
    }
    for batches in batches {
        let mut latest = HashMap::new();
        for delivery in batches.iter().flatten() {
            let request = &asked[delivery.ask];
            let (Some(place), 1) = (places[delivery.ask], uses[&identity(request)]) else {
                continue;
            };
            let before = latest.insert(request.content.usage, place);
            if before.is_some_and(|before| before > place) {
                let text = format!("{request:?} was decided before one delivered earlier");
                count.found(Finding::Differing, text);
            }
        }
    }
}
