//! Queues that take messages and do not answer.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use tokio::time::interval;
use uuid::Uuid;

use super::setup::*;
use crate::instance::Instance;
use crate::support::report::{Finding, report_beside, sized};
use crate::support::unrelated::UnrelatedRequests;
use crate::support::{Request, TestEnv, eventually};

/// Suspends or resumes the process of a queue. A suspended queue neither confirms nor refuses a
/// message, as a quorum queue without a majority.
const CONTROL: &str = "{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, \
    <<\"QUEUE\">>)), \
    sys:ACTION(amqqueue:get_pid(Queue)).";

async fn control(instance: &Instance, action: &str, queue: &str) {
    let command = CONTROL.replace("QUEUE", queue).replace("ACTION", action);
    let said = instance.control(&["eval", &command]).await;
    assert_eq!(said.trim(), "ok");
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    arguments
}

async fn beside_a_silent_subscriber(fault: &str, arguments: FieldTable) {
    let (instance, servers) = Instance::start();
    let env = TestEnv::on(servers).await;
    let worker = env.start_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    let queue = subscribed(&env, &key, arguments).await;
    control(&instance, "suspend", &queue).await;
    beside_untaken_events(fault, env, worker, customer.account, sized(600, 3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_never_confirms_delays_no_other_org() {
    let fault = "beside: a subscriber's queue that never answers";
    beside_a_silent_subscriber(fault, FieldTable::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_quorum_queue_delays_no_other_org() {
    let fault = "beside: a subscriber's quorum queue that never answers";
    beside_a_silent_subscriber(fault, quorum()).await;
}

/// The fault begins with more malformed requests than a batch holds, some of them large, and goes
/// on with ten a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_dead_letter_queue_delays_no_request() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("RETRY__DELAYS", "1s,5s");
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let dead = env.name("dead");
    control(&instance, "suspend", &dead).await;
    let large = (0..40).map(|_| Request::raw("x".repeat(60_000)));
    let small = (0..sized(600, 3000)).map(|_| Request::raw("rubbish"));
    let mut malformed: Vec<_> = large.chain(small).collect();
    for request in &malformed {
        env.publish(request).await;
    }
    let more: Vec<_> = (0..sized(50, 600))
        .map(|_| Request::raw("rubbish"))
        .collect();
    let trickle = async {
        let mut ticks = interval(Duration::from_millis(100));
        for request in &more {
            ticks.tick().await;
            env.publish(request).await;
        }
    };
    let ((mut count, waits), ()) = tokio::join!(unrelated.send_during_fault(&env), trickle);
    control(&instance, "resume", &dead).await;
    malformed.extend(more);
    let (mut events, mut letters) = (env.events().await, env.mailbox(&dead).await);
    for request in &malformed {
        if events.answer(request).await.verdict() != "MALFORMED_REQUEST" {
            count.found(Finding::Differing, request.correlation());
        }
        assert_eq!(letters.answer(request).await.body, request.body);
    }
    env.drained().await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    assert!(!log.contains("dead_letter_dropped"), "{log}");
    let fault = "beside: a dead-letter queue that never answers";
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_rung_delays_no_request() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("RETRY__DELAYS", "1h,2h,3h");
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let account = env.customer().await.account;
    let rung = env.name("retry.1h");
    control(&instance, "suspend", &rung).await;
    let requests = sized(600, 3000);
    for _ in 0..requests {
        let waiting = Request::revert(account, Uuid::new_v4(), 5);
        env.publish(&waiting).await;
    }
    let (count, waits) = unrelated.send_during_fault(&env).await;
    let next = env.name("retry.2h");
    eventually("they wait on the next rung", async || {
        env.depth(&next).await as usize == requests
    })
    .await;
    assert_eq!(env.depth(&env.name("retry.3h")).await, 0, "no second copy");
    control(&instance, "resume", &rung).await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    let fault = "beside: a rung that never answers";
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
}

/// Every request has an event for that queue. They wait on the rungs and are answered from their
/// stored outcomes.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_reply_queue_makes_requests_wait() {
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("RETRY__DELAYS", "1h");
    let mut worker = env.start_worker().await;
    let account = env.customer().await.account;
    let replies = env.name("replies");
    control(&instance, "suspend", &replies).await;
    for _ in 0..20 {
        let usage = env.usage(account, 20).await;
        env.publish(&Request::revert(account, usage, 5)).await;
    }
    let rung = env.name("retry.1h");
    eventually("they wait on the rung", async || {
        env.depth(&rung).await == 20
    })
    .await;
    control(&instance, "resume", &replies).await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    assert!(log.contains("retried=0 dead_lettered=0"), "{log}");
    env.teardown().await;
}
