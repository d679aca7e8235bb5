//! Servers and workers that crash, restart and stop while requests are processed.

use lapin::options::*;
use uuid::Uuid;

use crate::instance::Instance;
use crate::report::{report, seed, sized};
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::*;

/// Waits until the outcomes have reached a share of the expected number: about eight in ten
/// requests have one of their own.
async fn decided(env: &TestEnv, at_least: usize) {
    let enough = async || outcomes(env).await >= at_least;
    eventually("work goes on", enough).await;
}

async fn outcomes(env: &TestEnv) -> usize {
    let count = env.count("SELECT count(*) FROM revertd.outcomes").await;
    usize::try_from(count).expect("a count")
}

#[tokio::test]
async fn kill_9_of_workers_under_load_loses_nothing() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "50");
    let steady = env.start_worker().await;
    let size = sized(3000, 30_000);
    let load = Load::mixed(&env, seed(), size).await;
    let fault = async {
        let rounds = sized(8, 40);
        for round in 1..=rounds {
            let mut crashing = env.start_worker().await;
            decided(&env, round * size / rounds / 2).await;
            crashing.kill();
        }
    };
    tokio::join!(load.publish(&env), fault);
    let count = audit(&env, &load, vec![steady]).await;
    report("worker killed beside another", 1, count);
    env.teardown().await;
}

#[tokio::test]
async fn kill_9_of_the_only_worker_loses_nothing() {
    let mut env = TestEnv::new().await;
    env.set("REVERT__POLICY", "cumulative");
    env.start_worker().await.stop().await;
    let size = sized(400, 10_000);
    let load = Load::mixed(&env, seed(), size).await;
    load.publish(&env).await;
    for _ in 0..6 {
        let mut worker = env.start_worker().await;
        let before = outcomes(&env).await;
        decided(&env, (before + 1).min(size / 2)).await;
        worker.kill();
    }
    let last = env.start_worker().await;
    let count = audit(&env, &load, vec![last]).await;
    report("the only worker killed", 1, count);
    env.teardown().await;
}

#[tokio::test]
async fn rabbitmq_restarted_and_killed_loses_nothing() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "50");
    let workers = vec![env.start_worker().await, env.start_worker().await];
    let size = sized(2000, 20_000);
    let load = Load::mixed(&env, seed(), size).await;
    let fault = async {
        let rounds = sized(1, 4);
        for round in 0..rounds {
            decided(&env, size * (4 * round + 1) / rounds / 10).await;
            instance.run_action_blocking("restart", "rabbit");
            decided(&env, size * (4 * round + 4) / rounds / 10).await;
            instance.run_action_blocking("kill", "rabbit");
            instance.run_action_blocking("start-one", "rabbit");
        }
    };
    tokio::join!(load.publish(&env), fault);
    let count = audit(&env, &load, workers).await;
    report("RabbitMQ restarted and killed", 1, count);
}

#[tokio::test]
async fn postgresql_restarted_and_killed_loses_nothing() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "50");
    env.set("REVERT__POLICY", "cumulative");
    let one = env.start_worker().await;
    let mut two = env.start_worker().await;
    let size = sized(4000, 20_000);
    let load = Load::mixed(&env, seed(), size).await;
    let share = |of: usize| u32::try_from(size * of / 100).expect("small");
    let fault = async {
        eventually("work goes on", async || {
            env.depth(&env.name("replies")).await > share(8)
        })
        .await;
        instance.run_action_blocking("restart", "pg");
        eventually("and on", async || {
            env.depth(&env.name("replies")).await > share(30)
        })
        .await;
        instance.run_action_blocking("kill", "pg");
        two.logged("paused: the database").await;
        instance.run_action_blocking("start-one", "pg");
    };
    tokio::join!(load.publish(&env), fault);
    let count = audit(&env, &load, vec![one, two]).await;
    report("PostgreSQL restarted and killed", 1, count);
}

#[tokio::test]
async fn both_servers_killed_at_once_lose_nothing() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "50");
    let workers = vec![env.start_worker().await, env.start_worker().await];
    let size = sized(2000, 20_000);
    let load = Load::mixed(&env, seed(), size).await;
    let rounds = sized(1, 5);
    let fault = async {
        for round in 0..rounds {
            env.await_events(size * (2 * round + 1) / rounds / 3).await;
            instance.run_action_blocking("kill", "pg");
            instance.run_action_blocking("kill", "rabbit");
            instance.run_action_blocking("start-one", "rabbit");
            instance.run_action_blocking("start-one", "pg");
        }
    };
    tokio::join!(load.publish(&env), fault);
    let count = audit(&env, &load, workers).await;
    report("both servers killed at once", rounds, count);
}

#[tokio::test]
async fn a_server_missing_at_startup_is_waited_for() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "50");
    env.start_worker().await.stop().await;
    let load = Load::mixed(&env, seed(), sized(500, 5000)).await;
    load.publish(&env).await;
    let mut workers = Vec::new();
    for (server, said) in [
        ("pg", "paused: the database"),
        ("rabbit", "paused: the broker"),
    ] {
        instance.run_action_blocking("stop-one", server);
        let mut worker = env.spawn_worker();
        worker.logged(said).await;
        instance.run_action_blocking("start-one", server);
        workers.push(worker);
    }
    let count = audit(&env, &load, workers).await;
    report("either server absent at the start", 2, count);
}

/// All workers of a process share a consumer, so all its messages in flight are requeued at once.
#[tokio::test]
async fn a_crash_counts_one_delivery_with_many_workers() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__CONCURRENCY", "16");
    env.set("WORKER__BATCH_MAX", "5");
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    let mut worker = env.start_worker().await;
    let load = Load::plain(&env, seed(), 150).await;
    let lock = "BEGIN; LOCK TABLE billing_transactions IN SHARE MODE";
    env.sql(lock).await;
    load.publish(&env).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revertd' \
                   AND wait_event_type = 'Lock' AND datname = current_database()";
    let mut seen = 0;
    eventually("all workers have a batch", async || {
        // Within a transaction, PostgreSQL repeats the statistics that it returned before.
        env.sql("SELECT pg_stat_clear_snapshot()").await;
        let before = std::mem::replace(&mut seen, env.count(waiting).await);
        if seen != before {
            eprintln!("{seen} workers have a batch");
        }
        seen == 16
    })
    .await;
    worker.kill();
    env.sql("COMMIT").await;
    let queue = env.name("work");
    eventually("all went back", async || env.depth(&queue).await >= 150).await;
    let most = env.most_redeliveries(&queue).await;
    assert_eq!(most, 1, "deliveries that one crash counts");
    env.teardown().await;
}

#[tokio::test]
async fn a_database_outage_counts_no_attempt() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__CONCURRENCY", "16");
    env.set("WORKER__BATCH_MAX", "5");
    let mut worker = env.start_worker().await;
    let load = Load::plain(&env, seed(), 300).await;
    instance.run_action_blocking("stop-one", "pg");
    load.publish(&env).await;
    worker.logged("paused: the database").await;
    eventually("all wait in the queue", async || {
        env.depth(&env.name("work")).await >= 300
    })
    .await;
    let most = env.most_redeliveries(&env.name("work")).await;
    assert!(most <= 1, "the channel closes once: {most} redeliveries");
    instance.run_action_blocking("start-one", "pg");
    let log = worker.log_handle();
    let count = audit(&env, &load, vec![worker]).await;
    report("PostgreSQL away", 1, count);
    let log = log();
    assert!(log.contains("retried=0 dead_lettered=0 "), "{log}");
}

#[tokio::test]
async fn terminated_backends_lose_nothing() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "50");
    let worker = env.start_worker().await;
    let size = sized(2000, 20_000);
    let load = Load::mixed(&env, seed(), size).await;
    let fault = async {
        let rounds = sized(10, 20);
        for round in 1..=rounds {
            decided(&env, round * size / rounds / 2).await;
            env.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE application_name = 'revertd' AND datname = current_database()",
            )
            .await;
        }
    };
    tokio::join!(load.publish(&env), fault);
    let count = audit(&env, &load, vec![worker]).await;
    report("backends terminated", 1, count);
    env.teardown().await;
}

#[tokio::test]
async fn deleted_queues_and_exchanges_are_declared_again() {
    let env = TestEnv::new().await;
    let mut worker = env.start_worker().await;
    let customer = env.customer().await;
    let again = async |request: &Request| {
        env.publish(request).await;
        env.events().await.answer(request).await.verdict()
    };
    // The worker finds the reply exchange and a rung missing when it needs them, and loses nothing
    // by it.
    let exchange = env.name("replies");
    let options = ExchangeDeleteOptions::default();
    env.channel
        .exchange_delete(exchange.as_str().into(), options)
        .await
        .expect("deleted");
    let usage = env.usage(customer.account, 20).await;
    assert_eq!(
        again(&Request::revert(customer.account, usage, 5)).await,
        "usage.reverted"
    );
    for rung in ["retry.100ms", "retry.200ms", "dead"] {
        let queue = env.name(rung);
        let options = QueueDeleteOptions::default();
        env.channel
            .queue_delete(queue.as_str().into(), options)
            .await
            .expect("deleted");
    }
    let unknown = Request::revert(customer.account, Uuid::new_v4(), 5);
    assert_eq!(again(&unknown).await, "USAGE_NOT_FOUND");
    assert_eq!(again(&Request::raw("rubbish")).await, "MALFORMED_REQUEST");
    assert_eq!(env.depth(&env.name("dead")).await, 1);
    // Without its queue the worker notices at once.
    let readies = |worker: &WorkerProcess| worker.log().matches(" ready ").count();
    let before = readies(&worker);
    let queue = env.name("work");
    let options = QueueDeleteOptions::default();
    env.channel
        .queue_delete(queue.as_str().into(), options)
        .await
        .expect("deleted");
    worker.logged("stopped delivering").await;
    // Not before it is bound, too.
    eventually("the worker is ready again", async || {
        readies(&worker) > before
    })
    .await;
    let usage = env.usage(customer.account, 20).await;
    assert_eq!(
        again(&Request::revert(customer.account, usage, 5)).await,
        "usage.reverted"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_broker_that_blocks_publishers_is_waited_for() {
    let (instance, servers) = Instance::start();
    let env = TestEnv::on(servers).await;
    let worker = env.start_worker().await;
    let load = Load::mixed(&env, seed(), 500).await;
    load.publish(&env).await;
    let count = audit(&env, &load, vec![worker]).await;
    // Published first, to be taken with the alarm on.
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    env.publish(&request).await;
    instance.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    eventually("the alarm is on", async || {
        instance
            .ctl(&["eval", "rabbit_alarm:get_alarms()."])
            .contains("resource_limit")
    })
    .await;
    let mut worker = env.spawn_worker();
    worker.logged("blocks publishers").await;
    assert_eq!(
        env.depth(&env.name("work")).await,
        1,
        "nothing is taken while nothing can be told"
    );
    instance.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    assert_eq!(
        env.events().await.answer(&request).await.verdict(),
        "usage.reverted"
    );
    // An idle pool notices it too: publishers could not publish.
    instance.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    eventually("an idle pool pauses", async || {
        worker.log().matches("blocks publishers").count() == 2
    })
    .await;
    instance.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    env.publish(&request).await;
    let answer = env.events().await.answer(&request).await;
    assert_eq!(answer.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    report("the broker blocks publishers", 1, count);
}
