//! Queues that are full, refuse messages or do not answer.

use lapin::options::QueuePurgeOptions;
use lapin::types::FieldTable;
use uuid::Uuid;

use super::setup::*;
use crate::instance::Instance;
use crate::support::report::{Finding, report_beside, sized};
use crate::support::unrelated::UnrelatedRequests;
use crate::support::{Request, TestEnv, WorkerProcess, eventually};

/// Requests of an org whose subscriber's queue does not take events, beside unrelated requests:
/// their events are in revertd's own queue in the end, and no attempt is counted.
async fn beside_untaken_events(
    fault: &str,
    env: TestEnv,
    mut worker: WorkerProcess,
    account: Uuid,
    requests: usize,
) {
    let mut untaken = Vec::new();
    for _ in 0..requests {
        let usage = env.usage(account, 20).await;
        untaken.push(Request::revert(account, usage, 5));
    }
    let unrelated = UnrelatedRequests::new(&env).await;
    for request in &untaken {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    env.drained().await;
    let mut events = env.events().await;
    for request in &untaken {
        if events.answer(request).await.verdict() != "usage.reverted" {
            count.found(Finding::Differing, request.correlation());
        }
    }
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    assert!(
        log.contains("retried=0 dead_lettered=0"),
        "no attempt is counted: {log}"
    );
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rejects_publishes_delays_no_other_org() {
    let (env, worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    subscribed(&env, &key, refusing()).await;
    let fault = "beside: a subscriber's queue that refuses";
    beside_untaken_events(fault, env, worker, customer.account, 20).await;
}

/// Suspends the process of a queue. It then neither confirms nor refuses messages, like a quorum
/// queue without a majority.
const SUSPEND: &str = "{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, \
    <<\"QUEUE\">>)), \
    sys:suspend(amqqueue:get_pid(Queue)).";

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_never_confirms_delays_no_other_org() {
    let (instance, servers) = Instance::start();
    let env = TestEnv::on(servers).await;
    let worker = env.start_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    let queue = subscribed(&env, &key, FieldTable::default()).await;
    let suspend = SUSPEND.replace("QUEUE", &queue);
    let said = instance.control(&["eval", &suspend]).await;
    assert_eq!(said.trim(), "ok");
    let fault = "beside: a subscriber's queue that never answers";
    beside_untaken_events(fault, env, worker, customer.account, sized(600, 3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_dead_letter_queue_delays_no_request() {
    let mut env = TestEnv::new().await;
    env.set("TOPOLOGY__DEAD_LETTER_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let rubbish: Vec<_> = (0..40).map(|_| Request::raw("x".repeat(500))).collect();
    for request in &rubbish {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let mut events = env.events().await;
    for request in &rubbish {
        if events.answer(request).await.verdict() != "MALFORMED_REQUEST" {
            count.found(Finding::Differing, request.correlation());
        }
    }
    env.drained().await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    report_beside("beside: a dead-letter queue that is full", 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rungs_full_pauses_the_pool_uncounted() {
    let mut env = TestEnv::new().await;
    env.set("RETRY__DELAYS", "1h");
    env.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    let rung = env.name("retry.1h");
    fill(&env, &rung).await;
    let account = env.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    env.publish(&waiting).await;
    worker.logged("paused: publishing").await;
    let emptied = env
        .channel
        .queue_purge(rung.as_str().into(), QueuePurgeOptions::default());
    emptied.await.expect("emptied");
    eventually("it waits on the rung", async || env.depth(&rung).await == 1).await;
    assert_eq!(env.peek(&rung).await.body, waiting.body);
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(log.contains("dead_lettered=0 redelivered=0"), "{log}");
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_rung_delays_no_request() {
    let mut env = TestEnv::new().await;
    env.set("RETRY__DELAYS", "1h,2h");
    env.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    fill(&env, &env.name("retry.1h")).await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let account = env.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    env.publish(&waiting).await;
    let (count, waits) = unrelated.send_during_fault(&env).await;
    let next = env.name("retry.2h");
    eventually("it waits on the next rung", async || {
        env.depth(&next).await == 1
    })
    .await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    report_beside("beside: a rung that is full", 1, count, &waits);
    env.teardown().await;
}
