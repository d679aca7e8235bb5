//! A RabbitMQ that blocks publishers, loses patience, or loses what revertd declared.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::time::sleep;

use crate::instance::Instance;
use crate::support::audit::audit;
use crate::support::line::Line;
use crate::support::load::Load;
use crate::support::report::{full, report, seed};
use crate::support::{Stage, eventually};

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
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "20");
    stage.set("DATABASE__LOCK_TIMEOUT", "30s");
    let load = Load::mixed(&stage, seed(), size()).await;
    let worker = stage.start_worker().await;
    let files = || {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", worker.pid()));
        listed.expect("it runs").count()
    };
    // Without the connections to the database that come with the work.
    let before = files();
    // What is published can't be answered before the alarm is on.
    stage
        .sql("BEGIN; LOCK TABLE billing_transactions IN SHARE MODE")
        .await;
    load.publish(&stage).await;
    instance.control(raise).await;
    let alarms = async || {
        let alarms = instance
            .control(&["eval", "rabbit_alarm:get_alarms()."])
            .await;
        alarms.contains("resource_limit")
    };
    eventually("the alarm is on", alarms).await;
    stage.sql("COMMIT").await;
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
    let most = stage.most_redeliveries(&stage.name("work")).await;
    assert!(
        most <= 3,
        "the pool waits without a delivery in hand: {most} redeliveries"
    );
    assert!(!log.contains("dead-lettered: delivered"), "{log}");
    eventually("what was left open is closed", async || {
        files() <= before + 10
    })
    .await;
    let count = audit(&stage, &load, vec![worker]).await;
    report(fault, 1, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_said_at_once_and_waited_for() {
    let raise = ["set_vm_memory_high_watermark", "0.000001"];
    blocked(
        "broker: memory alarm",
        &raise,
        &["set_vm_memory_high_watermark", "0.8"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_alarm_is_said_at_once_and_waited_for() {
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
async fn an_acknowledgement_that_comes_too_late_costs_nothing() {
    let (instance, servers) = Instance::start();
    let set = "application:set_env(rabbit, consumer_timeout, 1000).";
    instance.control(&["eval", set]).await;
    // A channel looks at its deliveries once in a tick, which is a minute, or none where it sleeps.
    let tick = "[Channel ! tick || Channel <- rabbit_channel:list_local()].";
    let mut stage = Stage::on(servers).await;
    stage.set("DATABASE__LOCK_TIMEOUT", "30s");
    let load = Load::mixed(&stage, seed(), size()).await;
    let mut worker = stage.start_worker().await;
    let rounds = if full() { 10 } else { 2 };
    for part in load.parts(load.requests.len().div_ceil(rounds)) {
        let before = worker.log().len();
        stage
            .sql("BEGIN; LOCK TABLE billing_transactions IN SHARE MODE")
            .await;
        load.publish_part(&stage, part).await;
        eventually("the broker closes the channel", async || {
            instance.control(&["eval", tick]).await;
            stage.consumers().await == 0
        })
        .await;
        stage.sql("COMMIT").await;
        worker.logged_since(before, "paused: the broker").await;
        worker.logged_since(before, " ready ").await;
    }
    let count = audit(&stage, &load, vec![worker]).await;
    report("broker: consumer timeout", rounds, count);
}

/// All connections, or one channel of each, closed by the broker again and again.
#[tokio::test(flavor = "multi_thread")]
async fn connections_and_channels_closed_by_the_broker_are_opened_again() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "20");
    let load = Load::mixed(&stage, seed(), size()).await;
    let workers = vec![stage.start_worker().await, stage.start_worker().await];
    let rounds = if full() { 20 } else { 3 };
    let kill_channels = "[exit(Pid, kill) || Pid <- rabbit_channel:list_local()].";
    let faults = async {
        for round in 0..rounds {
            stage.told(round * load.requests.len() / (rounds + 1)).await;
            if round % 2 == 0 {
                instance.control(&["close_all_connections", "fault"]).await;
            } else {
                instance.control(&["eval", kill_channels]).await;
            }
        }
    };
    tokio::join!(load.publish(&stage), faults);
    let count = audit(&stage, &load, workers).await;
    report("broker: connections and channels closed", rounds, count);
}

/// Under load, each thing that revertd declared is deleted in turn. The work queue goes with its
/// requests, and a queue of letters with its letters, which is the deleter's doing: what goes is
/// empty, or is published again. On a broker of its own, and a queue is deleted only once all are
/// there: RabbitMQ 3.10 ends the supervisor of its dead-lettering, until the node restarts, where
/// such queues are deleted in the moment in which they begin.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_under_load_is_declared_again() {
    let (_instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "20");
    let load = Load::mixed(&stage, seed(), size()).await;
    let workers = vec![stage.start_worker().await, stage.start_worker().await];
    let mut line = Line::new(&stage.servers.amqp);
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
                let name = stage.name(queue);
                line.insist("declared", async |channel| {
                    channel
                        .queue_declare(name.as_str().into(), passive, FieldTable::default())
                        .await
                })
                .await;
            }
            for exchange in ["replies", "dead", "requests"] {
                let name = stage.name(exchange);
                line.insist("deleted", async |channel| {
                    channel
                        .exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default())
                        .await
                })
                .await;
            }
            for queue in queues {
                let name = stage.name(queue);
                line.insist("deleted", async |channel| {
                    channel
                        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
                        .await
                })
                .await;
            }
        }
    };
    // Only an idle worker, which needs none of them, would not notice all: the load is on, and then
    // comes again.
    tokio::join!(load.publish(&stage), faults);
    load.publish(&stage).await;
    let count = audit(&stage, &load, workers).await;
    report("broker: exchanges and queues deleted", rounds * 9, count);
}

/// The worker may not write where events go. What was decided waits, and is not delivered again and
/// again until it is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_missing_for_a_while_gives_nothing_up() {
    let (instance, servers) = Instance::start();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "20");
    // Who declares is refused that first, and takes nothing.
    stage.start_worker().await.stop().await;
    stage.set("TOPOLOGY__DECLARE", "false");
    let load = Load::mixed(&stage, seed(), size()).await;
    let mut worker = stage.start_worker().await;
    let may_write = async |pattern: &str| {
        let permit = ["set_permissions", "-p", "/", "revertd", ".*", pattern, ".*"];
        instance.control(&permit).await;
    };
    may_write("^(?!.*replies).*$").await;
    // A channel remembers what it may do.
    let close = ["close_all_connections", "fault"];
    instance.control(&close).await;
    load.publish(&stage).await;
    for _ in 0..if full() { 10 } else { 3 } {
        let before = worker.log().len();
        worker.logged_since(before, "paused: publishing").await;
    }
    may_write(".*").await;
    let count = audit(&stage, &load, vec![worker]).await;
    report("broker: permission missing", 1, count);
}

/// Takes the consumer of the queue away and tells nobody, as a leader does that forgets it at its
/// restart.
const FORGET: &str = "Name = rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>), \
    {ok, Queue} = rabbit_amqqueue:lookup(Name), \
    [begin Forget = rabbit_fifo:make_checkout({element(2, C), element(1, C)}, cancel, #{}), \
           {ok, _, _} = ra:process_command(amqqueue:get_pid(Queue), Forget) \
     end || C <- rabbit_amqqueue:consumers(Queue)], \
    length(rabbit_amqqueue:consumers(Queue)).";

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_queue_forgot_is_opened_anew() {
    let (instance, servers) = Instance::start();
    let stage = Stage::on(servers).await;
    let worker = stage.start_worker().await;
    let forget = FORGET.replace("QUEUE", &stage.name("work"));
    let left = instance.control(&["eval", &forget]).await;
    assert_eq!(left.trim(), "0", "nothing is delivered from here on");
    let load = Load::plain(&stage, seed(), 20).await;
    load.publish(&stage).await;
    let count = audit(&stage, &load, vec![worker]).await;
    report("a queue forgets its consumer", 1, count);
}
