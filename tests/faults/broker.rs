//! A RabbitMQ that blocks publishers, closes connections, or loses the topology.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::time::sleep;

use crate::instance::Instance;
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::reconnect::ReconnectingChannel;
use crate::support::report::{full, report, seed};
use crate::support::{TestEnv, eventually};

fn size() -> usize {
    if full() { 6000 } else { 600 }
}

/// How long an alarm lasts.
fn alarm() -> Duration {
    Duration::from_secs(if full() { 120 } else { 4 })
}

/// Under load, the broker runs out of something; later it has it again.
async fn blocked(fault: &str, raise: &[&str], clear: &[&str]) {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "20");
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    let load = Load::mixed(&env, seed(), size()).await;
    let worker = env.start_worker().await;
    let files = || {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", worker.pid()));
        listed.expect("it runs").count()
    };
    // Without the connections to the database that come with the work.
    let before = files();
    // Keeps requests unanswered until the alarm is on.
    env.sql("BEGIN; LOCK TABLE billing_transactions IN SHARE MODE")
        .await;
    load.publish(&env).await;
    instance.control(raise).await;
    let alarms = async || {
        let alarms = instance
            .control(&["eval", "rabbit_alarm:get_alarms()."])
            .await;
        alarms.contains("resource_limit")
    };
    eventually("the alarm is on", alarms).await;
    env.sql("COMMIT").await;
    eventually("it is said at once", async || {
        worker.log().contains("blocks publishers")
    })
    .await;
    sleep(alarm()).await;
    let now = files();
    assert!(
        now <= before + 12,
        "files while blocked: {now}, {before} before"
    );
    instance.control(clear).await;
    let log = worker.log();
    let most = env.most_redeliveries(&env.name("work")).await;
    assert!(
        most <= 3,
        "the pool waits without a delivery in hand: {most} redeliveries"
    );
    assert!(!log.contains("dead-lettered: delivered"), "{log}");
    eventually("what was left open is closed", async || {
        files() <= before + 10
    })
    .await;
    let count = audit(&env, &load, vec![worker]).await;
    report(fault, 1, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_logged_and_waited_for() {
    let raise = ["set_vm_memory_high_watermark", "0.000001"];
    blocked(
        "broker: memory alarm",
        &raise,
        &["set_vm_memory_high_watermark", "0.8"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_alarm_is_logged_and_waited_for() {
    let raise = ["set_disk_free_limit", "100000GB"];
    blocked(
        "broker: disk alarm",
        &raise,
        &["set_disk_free_limit", "50MB"],
    )
    .await;
}

/// The broker loses patience with a worker that waits for a lock in the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_timeout_loses_and_doubles_nothing() {
    let (instance, servers) = Instance::start();
    let set = "application:set_env(rabbit, consumer_timeout, 1000).";
    instance.control(&["eval", set]).await;
    // A channel looks at its deliveries once in a tick, which is a minute, or none where it sleeps.
    let tick = "[Channel ! tick || Channel <- rabbit_channel:list_local()].";
    let mut env = TestEnv::on(servers).await;
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    let load = Load::mixed(&env, seed(), size()).await;
    let mut worker = env.start_worker().await;
    let rounds = if full() { 10 } else { 2 };
    for part in load.parts(load.requests.len().div_ceil(rounds)) {
        let before = worker.log().len();
        env.sql("BEGIN; LOCK TABLE billing_transactions IN SHARE MODE")
            .await;
        load.publish_part(&env, part).await;
        eventually("the broker closes the channel", async || {
            instance.control(&["eval", tick]).await;
            env.consumers().await == 0
        })
        .await;
        env.sql("COMMIT").await;
        worker.logged_since(before, "paused: the broker").await;
        worker.logged_since(before, " ready ").await;
    }
    let count = audit(&env, &load, vec![worker]).await;
    report("broker: consumer timeout", rounds, count);
}

/// All connections, or one channel of each, closed by the broker again and again.
#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_by_the_broker_are_reopened() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "20");
    let load = Load::mixed(&env, seed(), size()).await;
    let workers = vec![env.start_worker().await, env.start_worker().await];
    let rounds = if full() { 20 } else { 3 };
    let kill_channels = "[exit(Pid, kill) || Pid <- rabbit_channel:list_local()].";
    let faults = async {
        for round in 0..rounds {
            env.await_events(round * load.requests.len() / (rounds + 1))
                .await;
            if round % 2 == 0 {
                instance.control(&["close_all_connections", "fault"]).await;
            } else {
                instance.control(&["eval", kill_channels]).await;
            }
        }
    };
    tokio::join!(load.publish(&env), faults);
    let count = audit(&env, &load, workers).await;
    report("broker: connections and channels closed", rounds, count);
}

/// Under load, each thing that revertd declared is deleted in turn. A deleted queue loses its
/// messages, so the test deletes empty queues, or publishes the messages again. It has a broker of
/// its own, and deletes a queue only once all queues exist: if such queues are deleted while they
/// start, RabbitMQ 3.10 ends the supervisor of its dead-lettering until the node restarts.
#[tokio::test(flavor = "multi_thread")]
async fn topology_deleted_under_load_is_declared_again() {
    let (_instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "20");
    let load = Load::mixed(&env, seed(), size()).await;
    let workers = vec![env.start_worker().await, env.start_worker().await];
    let mut broker = ReconnectingChannel::new(&env.servers.amqp);
    let rounds = if full() { 10 } else { 1 };
    let queues = [
        "retry.100ms",
        "retry.200ms",
        "retry.300ms",
        "dead",
        "replies",
        "work",
    ];
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let faults = async {
        for _ in 0..rounds {
            for queue in queues {
                let name = env.name(queue);
                broker
                    .retry("declared", async |channel| {
                        channel
                            .queue_declare(name.as_str().into(), passive, FieldTable::default())
                            .await
                    })
                    .await;
            }
            for exchange in ["replies", "dead", "requests"] {
                let name = env.name(exchange);
                broker
                    .retry("deleted", async |channel| {
                        channel
                            .exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default())
                            .await
                    })
                    .await;
            }
            for queue in queues {
                let name = env.name(queue);
                broker
                    .retry("deleted", async |channel| {
                        channel
                            .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
                            .await
                    })
                    .await;
            }
        }
    };
    // The load runs during the deletions and again after them: an idle worker uses no exchange and
    // would not notice.
    tokio::join!(load.publish(&env), faults);
    load.publish(&env).await;
    let count = audit(&env, &load, workers).await;
    report("broker: exchanges and queues deleted", rounds * 9, count);
}

/// The worker may not write to the exchange of events. Decided requests wait,
/// without redeliveries that would reach the queue's delivery limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_revoked_for_a_while_loses_nothing() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "20");
    // Who declares is refused that first, and takes nothing.
    env.start_worker().await.stop().await;
    env.set("TOPOLOGY__DECLARE", "false");
    let load = Load::mixed(&env, seed(), size()).await;
    let mut worker = env.start_worker().await;
    let may_write = async |pattern: &str| {
        let permit = ["set_permissions", "-p", "/", "revertd", ".*", pattern, ".*"];
        instance.control(&permit).await;
    };
    may_write("^(?!.*replies).*$").await;
    // RabbitMQ caches the permissions of a channel.
    let close = ["close_all_connections", "fault"];
    instance.control(&close).await;
    load.publish(&env).await;
    for _ in 0..if full() { 10 } else { 3 } {
        let before = worker.log().len();
        worker.logged_since(before, "paused: publishing").await;
    }
    may_write(".*").await;
    let count = audit(&env, &load, vec![worker]).await;
    report("broker: permission missing", 1, count);
}

/// Removes the consumer from the queue without notice, as a leader does that forgets it at a
/// restart.
const FORGET: &str = "Name = rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>), \
    {ok, Queue} = rabbit_amqqueue:lookup(Name), \
    [begin Forget = rabbit_fifo:make_checkout({element(2, C), element(1, C)}, cancel, #{}), \
           {ok, _, _} = ra:process_command(amqqueue:get_pid(Queue), Forget) \
     end || C <- rabbit_amqqueue:consumers(Queue)], \
    length(rabbit_amqqueue:consumers(Queue)).";

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_queue_forgot_is_replaced() {
    let (instance, servers) = Instance::start();
    let env = TestEnv::on(servers).await;
    let worker = env.start_worker().await;
    let forget = FORGET.replace("QUEUE", &env.name("work"));
    let left = instance.control(&["eval", &forget]).await;
    assert_eq!(left.trim(), "0", "nothing is delivered from here on");
    let load = Load::plain(&env, seed(), 20).await;
    load.publish(&env).await;
    let count = audit(&env, &load, vec![worker]).await;
    report("a queue forgets its consumer", 1, count);
}
