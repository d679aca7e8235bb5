//! Processes and servers stopped, killed and taken away under load; then everything is counted.
//!
//! Each test that touches a server has an instance of its own.

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::*;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use support::*;

/// Longest that a fault and the recovery from it may take.
const RECOVERY: Duration = Duration::from_secs(150);

/// An instance that goes with its test.
struct Instance(String);

impl Instance {
    fn start() -> (Self, Servers) {
        let name = format!("faults-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let servers = Servers::instance(&name);
        (Self(name), servers)
    }

    fn do_to(&self, action: &str, server: &str) {
        manage(&[action, &self.0, server]);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        manage(&["destroy", &self.0]);
    }
}

/// Requests, each of a usage of its own but every tenth, which asks again for the usage before it.
struct Load {
    requests: Vec<Request>,
    usages: usize,
}

impl Load {
    async fn of(stage: &Stage, count: usize) -> Self {
        let customer = stage.customer().await;
        let (mut requests, mut usages, mut last) = (Vec::with_capacity(count), 0, Uuid::nil());
        let rows = stage
            .db
            .query(
                "INSERT INTO billing_transactions (account_id, type, source, amount) \
                 SELECT $1, 'debit', 'api.usage', 20 FROM generate_series(1, $2::bigint) RETURNING id",
                &[&customer.account, &i64::try_from(count).expect("small")],
            )
            .await
            .expect("inserted");
        for (index, row) in rows.iter().enumerate() {
            if index % 10 != 9 {
                last = row.get(0);
                usages += 1;
            }
            requests.push(Request::revert(customer.account, last, 20));
        }
        Self { requests, usages }
    }

    /// Publishes everything until it is confirmed, whatever becomes of the broker; about every third request
    /// twice.
    async fn publish(&self, stage: &Stage) {
        let exchange = stage.name("requests");
        let mut channel = None;
        for (index, window) in self.requests.chunks(20).enumerate() {
            let deadline = Instant::now() + RECOVERY;
            while timeout(
                Duration::from_secs(10),
                publish_window(&mut channel, stage, &exchange, window, index),
            )
            .await
            .map_or(true, |done| done.is_err())
            {
                assert!(Instant::now() < deadline, "the broker takes requests again");
                channel = None;
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Waits for every event, and checks that everything adds up.
    async fn check(&self, stage: &Stage) {
        let events = self.events(stage).await;
        let mut reverted = 0;
        for request in &self.requests {
            let told = &events[&request.correlation()];
            assert!(
                told.iter().all(|body| *body == told[0]),
                "one outcome, one event"
            );
            let event: serde_json::Value = serde_json::from_slice(&told[0]).expect("JSON");
            match event["type"].as_str() {
                Some("usage.reverted") => reverted += 1,
                _ => assert_eq!(
                    event["data"]["error"]["details"][0]["reason"],
                    "ALREADY_REVERTED"
                ),
            }
        }
        assert_eq!(reverted, self.usages, "each usage once");
        let outcomes = i64::try_from(self.requests.len()).expect("small");
        assert_eq!(
            stage.count("SELECT count(*) FROM revertd.outcomes").await,
            outcomes
        );
        let entries =
            "SELECT count(*) FROM billing_transactions WHERE metadata ? 'revert_request_using'";
        assert_eq!(
            stage.count(entries).await,
            2 * i64::try_from(self.usages).expect("small")
        );
        stage.assert_ledger_is_sound().await;
        stage.drained().await;
        assert_eq!(
            stage.depth(&stage.name("dead")).await,
            0,
            "nothing is given up"
        );
    }

    /// Reads the reply queue until every request is answered; the bodies by correlation id.
    async fn events(&self, stage: &Stage) -> HashMap<String, Vec<Vec<u8>>> {
        let connection = connect_amqp(&stage.servers.amqp).await;
        let channel = connection.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let queue = stage.name("replies");
        let mut consumer = channel
            .basic_consume(
                queue.as_str().into(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await
            .expect("consumed");
        let mut events: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        while events.len() < self.requests.len() {
            let next = timeout(RECOVERY, consumer.next()).await;
            let delivery = next
                .unwrap_or_else(|_| panic!("{} of {} answered", events.len(), self.requests.len()))
                .expect("the queue stays")
                .expect("received");
            let correlation = delivery
                .properties
                .correlation_id()
                .as_ref()
                .expect("set")
                .to_string();
            events.entry(correlation).or_default().push(delivery.data);
        }
        events
    }
}

async fn publish_window(
    channel: &mut Option<(lapin::Connection, lapin::Channel)>,
    stage: &Stage,
    exchange: &str,
    window: &[Request],
    index: usize,
) -> lapin::Result<()> {
    if channel.is_none() {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&stage.servers.amqp, properties).await?;
        let opened = connection.create_channel().await?;
        opened
            .confirm_select(ConfirmSelectOptions { nowait: false })
            .await?;
        *channel = Some((connection, opened));
    }
    let (_, channel) = channel.as_ref().expect("opened above");
    for request in window
        .iter()
        .chain(window.iter().skip(index % 3).step_by(3))
    {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let confirm = channel
            .basic_publish(
                exchange.into(),
                "revert".into(),
                options,
                &request.body,
                request.properties.clone(),
            )
            .await?
            .await?;
        if confirm != lapin::Confirmation::Ack(None) {
            return Err(std::io::Error::other("not taken").into());
        }
    }
    Ok(())
}

/// Runs `fault` while a load is published and worked on by `stage`'s workers; then counts.
async fn under_load(stage: &Stage, count: usize, fault: impl AsyncFnOnce()) {
    let load = Load::of(stage, count).await;
    tokio::join!(load.publish(stage), fault());
    load.check(stage).await;
}

/// Waits until the outcomes have reached a share of what is to come.
async fn decided(stage: &Stage, at_least: i64) {
    let enough = async || stage.count("SELECT count(*) FROM revertd.outcomes").await >= at_least;
    eventually("work goes on", enough).await;
}

#[tokio::test]
async fn kill_9_of_workers_under_load() {
    let mut stage = Stage::new().await;
    stage.set("WORKER__BATCH_MAX", "50");
    let _steady = stage.start_worker().await;
    under_load(&stage, 3000, async || {
        for round in 1..=8 {
            let mut victim = stage.start_worker().await;
            decided(&stage, round * 300).await;
            victim.kill();
        }
    })
    .await;
    stage.strike().await;
}

#[tokio::test]
async fn kill_9_of_the_only_worker_again_and_again() {
    let stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    let load = Load::of(&stage, 3000).await;
    load.publish(&stage).await;
    for _ in 0..6 {
        let mut worker = stage.start_worker().await;
        let before = stage.count("SELECT count(*) FROM revertd.outcomes").await;
        decided(&stage, (before + 1).min(3000)).await;
        worker.kill();
    }
    let _last = stage.start_worker().await;
    load.check(&stage).await;
    stage.strike().await;
}

#[tokio::test]
async fn rabbitmq_restarted_and_killed_under_load() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    let _one = stage.start_worker().await;
    let _two = stage.start_worker().await;
    under_load(&stage, 2000, async || {
        decided(&stage, 200).await;
        instance.do_to("restart", "rabbit");
        decided(&stage, 800).await;
        instance.do_to("kill", "rabbit");
        instance.do_to("start-one", "rabbit");
    })
    .await;
}

#[tokio::test]
async fn postgresql_restarted_and_killed_under_load() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    let _one = stage.start_worker().await;
    let mut two = stage.start_worker().await;
    let load = Load::of(&stage, 4000).await;
    let queue = stage.name("work");
    let fault = async {
        eventually("work goes on", async || {
            stage.depth(&stage.name("replies")).await > 300
        })
        .await;
        instance.do_to("restart", "pg");
        eventually("and on", async || {
            stage.depth(&stage.name("replies")).await > 1200
        })
        .await;
        instance.do_to("kill", "pg");
        two.logged("paused: the database").await;
        instance.do_to("start-one", "pg");
    };
    tokio::join!(load.publish(&stage), fault);
    eventually("the queue is empty", async || {
        stage.depth(&queue).await == 0
    })
    .await;
    let mut stage = stage;
    stage.db = connect_db(&with_database(&stage.servers.database, &stage.database)).await;
    load.check(&stage).await;
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_counted_as_an_attempt_and_work_resumes_by_itself() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__CONCURRENCY", "16");
    stage.set("WORKER__BATCH_MAX", "5");
    let mut worker = stage.start_worker().await;
    let load = Load::of(&stage, 300).await;
    instance.do_to("stop-one", "pg");
    load.publish(&stage).await;
    worker.logged("paused: the database").await;
    eventually("all wait in the queue", async || {
        stage.depth(&stage.name("work")).await >= 300
    })
    .await;
    let most = stage.most_redeliveries(&stage.name("work")).await;
    assert!(most <= 1, "the channel closes once: {most} redeliveries");
    instance.do_to("start-one", "pg");
    stage.db = connect_db(&with_database(&stage.servers.database, &stage.database)).await;
    load.check(&stage).await;
    assert!(worker.stop().await.success());
    assert!(
        worker.log().contains("retried=0 dead_lettered=0 "),
        "{}",
        worker.log()
    );
}

#[tokio::test]
async fn backends_terminated_again_and_again_under_load() {
    let mut stage = Stage::new().await;
    stage.set("WORKER__BATCH_MAX", "50");
    let _worker = stage.start_worker().await;
    under_load(&stage, 2000, async || {
        for round in 1..=10 {
            decided(&stage, round * 100).await;
            stage
                .sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE application_name = 'revertd' AND datname = current_database()",
                )
                .await;
        }
    })
    .await;
    stage.strike().await;
}

#[tokio::test]
async fn queues_and_exchanges_deleted_while_running_are_there_again() {
    let stage = Stage::new().await;
    let mut worker = stage.start_worker().await;
    let customer = stage.customer().await;
    let again = async |request: &Request| {
        stage.publish(request).await;
        stage.events().await.answer(request).await.verdict()
    };
    // The worker finds the reply exchange and a rung missing when it needs them, and loses nothing by it.
    let exchange = stage.name("replies");
    let options = ExchangeDeleteOptions::default();
    stage
        .channel
        .exchange_delete(exchange.as_str().into(), options)
        .await
        .expect("deleted");
    let usage = stage.usage(customer.account, 20).await;
    assert_eq!(
        again(&Request::revert(customer.account, usage, 5)).await,
        "usage.reverted"
    );
    for rung in ["retry.100ms", "retry.200ms", "dead"] {
        let queue = stage.name(rung);
        let options = QueueDeleteOptions::default();
        stage
            .channel
            .queue_delete(queue.as_str().into(), options)
            .await
            .expect("deleted");
    }
    let unknown = Request::revert(customer.account, Uuid::new_v4(), 5);
    assert_eq!(again(&unknown).await, "USAGE_NOT_FOUND");
    assert_eq!(again(&Request::raw("rubbish")).await, "MALFORMED_REQUEST");
    assert_eq!(stage.depth(&stage.name("dead")).await, 1);
    // Without its queue the worker notices at once.
    let readies = |worker: &WorkerProcess| worker.log().matches(" ready ").count();
    let before = readies(&worker);
    let queue = stage.name("work");
    let options = QueueDeleteOptions::default();
    stage
        .channel
        .queue_delete(queue.as_str().into(), options)
        .await
        .expect("deleted");
    worker.logged("stopped delivering").await;
    // Not before it is bound, too.
    eventually("the worker is ready again", async || {
        readies(&worker) > before
    })
    .await;
    let usage = stage.usage(customer.account, 20).await;
    assert_eq!(
        again(&Request::revert(customer.account, usage, 5)).await,
        "usage.reverted"
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_broker_that_blocks_publishers_is_waited_for() {
    let (instance, servers) = Instance::start();
    let stage = Stage::on(servers).await;
    let mut worker = stage.start_worker().await;
    let load = Load::of(&stage, 500).await;
    load.publish(&stage).await;
    load.events(&stage).await;
    let usage = stage.usage(load_account(&stage).await, 20).await;
    let request = Request::revert(load_account(&stage).await, usage, 20);
    // Published first, to be taken with the alarm on.
    worker.stop().await;
    stage.publish(&request).await;
    manage(&[
        "ctl",
        &instance.0,
        "set_vm_memory_high_watermark",
        "0.000001",
    ]);
    let mut worker = stage.spawn_worker();
    worker.logged("does not answer").await;
    assert_eq!(
        stage.depth(&stage.name("work")).await,
        1,
        "nothing is taken while nothing can be told"
    );
    manage(&["ctl", &instance.0, "set_vm_memory_high_watermark", "0.8"]);
    assert_eq!(
        stage.events().await.answer(&request).await.verdict(),
        "usage.reverted"
    );
    assert!(worker.stop().await.success());
}

async fn load_account(stage: &Stage) -> Uuid {
    stage
        .db
        .query_one("SELECT id FROM billing_customers", &[])
        .await
        .expect("one")
        .get(0)
}
