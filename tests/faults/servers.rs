//! Servers and workers that crash, restart and go away while a load is worked on.

use lapin::options::*;
use uuid::Uuid;

use crate::instance::Instance;
use crate::report::{report, seed, sized};
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::*;

/// Waits until the outcomes have reached a share of what is to come: about eight in ten requests
/// have one of their own.
async fn decided(stage: &Stage, at_least: usize) {
    let enough = async || outcomes(stage).await >= at_least;
    eventually("work goes on", enough).await;
}

async fn outcomes(stage: &Stage) -> usize {
    let count = stage.count("SELECT count(*) FROM revertd.outcomes").await;
    usize::try_from(count).expect("a count")
}

#[tokio::test]
async fn kill_9_of_workers_under_load() {
    let mut stage = Stage::new().await;
    stage.set("WORKER__BATCH_MAX", "50");
    let steady = stage.start_worker().await;
    let size = sized(3000, 30_000);
    let load = Load::mixed(&stage, seed(), size).await;
    let fault = async {
        let rounds = sized(8, 40);
        for round in 1..=rounds {
            let mut victim = stage.start_worker().await;
            decided(&stage, round * size / rounds / 2).await;
            victim.kill();
        }
    };
    tokio::join!(load.publish(&stage), fault);
    let count = audit(&stage, &load, vec![steady]).await;
    report("worker killed beside another", 1, count);
    stage.strike().await;
}

#[tokio::test]
async fn kill_9_of_the_only_worker_again_and_again() {
    let mut stage = Stage::new().await;
    stage.set("REVERT__POLICY", "cumulative");
    stage.start_worker().await.stop().await;
    let size = sized(400, 10_000);
    let load = Load::mixed(&stage, seed(), size).await;
    load.publish(&stage).await;
    for _ in 0..6 {
        let mut worker = stage.start_worker().await;
        let before = outcomes(&stage).await;
        decided(&stage, (before + 1).min(size / 2)).await;
        worker.kill();
    }
    let last = stage.start_worker().await;
    let count = audit(&stage, &load, vec![last]).await;
    report("the only worker killed", 1, count);
    stage.strike().await;
}

#[tokio::test]
async fn rabbitmq_restarted_and_killed_under_load() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    let workers = vec![stage.start_worker().await, stage.start_worker().await];
    let size = sized(2000, 20_000);
    let load = Load::mixed(&stage, seed(), size).await;
    let fault = async {
        let rounds = sized(1, 4);
        for round in 0..rounds {
            decided(&stage, size * (4 * round + 1) / rounds / 10).await;
            instance.do_to("restart", "rabbit");
            decided(&stage, size * (4 * round + 4) / rounds / 10).await;
            instance.do_to("kill", "rabbit");
            instance.do_to("start-one", "rabbit");
        }
    };
    tokio::join!(load.publish(&stage), fault);
    let count = audit(&stage, &load, workers).await;
    report("RabbitMQ restarted and killed", 1, count);
}

#[tokio::test]
async fn postgresql_restarted_and_killed_under_load() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    stage.set("REVERT__POLICY", "cumulative");
    let one = stage.start_worker().await;
    let mut two = stage.start_worker().await;
    let size = sized(4000, 20_000);
    let load = Load::mixed(&stage, seed(), size).await;
    let share = |of: usize| u32::try_from(size * of / 100).expect("small");
    let fault = async {
        eventually("work goes on", async || {
            stage.depth(&stage.name("replies")).await > share(8)
        })
        .await;
        instance.do_to("restart", "pg");
        eventually("and on", async || {
            stage.depth(&stage.name("replies")).await > share(30)
        })
        .await;
        instance.do_to("kill", "pg");
        two.logged("paused: the database").await;
        instance.do_to("start-one", "pg");
    };
    tokio::join!(load.publish(&stage), fault);
    let count = audit(&stage, &load, vec![one, two]).await;
    report("PostgreSQL restarted and killed", 1, count);
}

#[tokio::test]
async fn both_servers_killed_at_once_under_load() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    let workers = vec![stage.start_worker().await, stage.start_worker().await];
    let size = sized(2000, 20_000);
    let load = Load::mixed(&stage, seed(), size).await;
    let rounds = sized(1, 5);
    let fault = async {
        for round in 0..rounds {
            stage.told(size * (2 * round + 1) / rounds / 3).await;
            instance.do_to("kill", "pg");
            instance.do_to("kill", "rabbit");
            instance.do_to("start-one", "rabbit");
            instance.do_to("start-one", "pg");
        }
    };
    tokio::join!(load.publish(&stage), fault);
    let count = audit(&stage, &load, workers).await;
    report("both servers killed at once", rounds, count);
}

#[tokio::test]
async fn a_server_that_is_absent_at_the_start_is_waited_for() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "50");
    stage.start_worker().await.stop().await;
    let load = Load::mixed(&stage, seed(), sized(500, 5000)).await;
    load.publish(&stage).await;
    let mut workers = Vec::new();
    for (server, said) in [
        ("pg", "waiting for the database"),
        ("rabbit", "paused: the broker"),
    ] {
        instance.do_to("stop-one", server);
        let mut worker = stage.spawn_worker();
        worker.logged(said).await;
        instance.do_to("start-one", server);
        workers.push(worker);
    }
    let count = audit(&stage, &load, workers).await;
    report("either server absent at the start", 2, count);
}

/// All workers of a process share a consumer: what was in hand goes back at once.
#[tokio::test]
async fn a_crash_counts_one_delivery_however_many_workers_there_are() {
    let mut stage = Stage::new().await;
    stage.set("WORKER__CONCURRENCY", "16");
    stage.set("WORKER__BATCH_MAX", "5");
    stage.set("DATABASE__LOCK_TIMEOUT", "30s");
    let mut worker = stage.start_worker().await;
    let lock = "BEGIN; LOCK TABLE billing_transactions IN SHARE MODE";
    stage.sql(lock).await;
    let load = Load::plain(&stage, seed(), 150).await;
    load.publish(&stage).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revertd' \
                   AND wait_event_type = 'Lock' AND datname = current_database()";
    let mut seen = 0;
    eventually("all workers have a batch", async || {
        // Within a transaction, what was seen once is seen again.
        stage.sql("SELECT pg_stat_clear_snapshot()").await;
        let before = std::mem::replace(&mut seen, stage.count(waiting).await);
        if seen != before {
            eprintln!("{seen} workers have a batch");
        }
        seen == 16
    })
    .await;
    worker.kill();
    stage.sql("COMMIT").await;
    let queue = stage.name("work");
    eventually("all went back", async || stage.depth(&queue).await >= 150).await;
    let most = stage.most_redeliveries(&queue).await;
    assert_eq!(most, 1, "deliveries that one crash counts");
    stage.strike().await;
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_counted_as_an_attempt_and_work_resumes_by_itself() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__CONCURRENCY", "16");
    stage.set("WORKER__BATCH_MAX", "5");
    let mut worker = stage.start_worker().await;
    let load = Load::plain(&stage, seed(), 300).await;
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
    let log = worker.log_handle();
    let count = audit(&stage, &load, vec![worker]).await;
    report("PostgreSQL away", 1, count);
    let log = log();
    assert!(log.contains("retried=0 dead_lettered=0 "), "{log}");
}

#[tokio::test]
async fn backends_terminated_again_and_again_under_load() {
    let mut stage = Stage::new().await;
    stage.set("WORKER__BATCH_MAX", "50");
    let worker = stage.start_worker().await;
    let size = sized(2000, 20_000);
    let load = Load::mixed(&stage, seed(), size).await;
    let fault = async {
        let rounds = sized(10, 20);
        for round in 1..=rounds {
            decided(&stage, round * size / rounds / 2).await;
            stage
                .sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE application_name = 'revertd' AND datname = current_database()",
                )
                .await;
        }
    };
    tokio::join!(load.publish(&stage), fault);
    let count = audit(&stage, &load, vec![worker]).await;
    report("backends terminated", 1, count);
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
    // The worker finds the reply exchange and a rung missing when it needs them, and loses nothing
    // by it.
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
    let worker = stage.start_worker().await;
    let load = Load::mixed(&stage, seed(), 500).await;
    load.publish(&stage).await;
    let count = audit(&stage, &load, vec![worker]).await;
    // Published first, to be taken with the alarm on.
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    stage.publish(&request).await;
    instance.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    eventually("the alarm is on", async || {
        instance
            .ctl(&["eval", "rabbit_alarm:get_alarms()."])
            .contains("resource_limit")
    })
    .await;
    let mut worker = stage.spawn_worker();
    worker.logged("blocks publishers").await;
    assert_eq!(
        stage.depth(&stage.name("work")).await,
        1,
        "nothing is taken while nothing can be told"
    );
    instance.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    assert_eq!(
        stage.events().await.answer(&request).await.verdict(),
        "usage.reverted"
    );
    // With nothing to do it is noticed, too: nobody could ask for anything.
    instance.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    eventually("an idle pool pauses", async || {
        worker.log().matches("blocks publishers").count() == 2
    })
    .await;
    instance.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    stage.publish(&request).await;
    let answer = stage.events().await.answer(&request).await;
    assert_eq!(answer.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    report("the broker blocks publishers", 1, count);
}
