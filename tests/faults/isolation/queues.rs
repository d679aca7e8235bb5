//! Queues that are full or refuse messages.

use std::collections::HashSet;

use lapin::options::QueuePurgeOptions;
use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::report::{Finding, report_beside};
use crate::support::unrelated::UnrelatedRequests;
use crate::support::{Request, TestEnv, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rejects_publishes_delays_no_other_org() {
    let (env, worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    subscribed(&env, &key, refusing()).await;
    let fault = "beside: a subscriber's queue that refuses";
    beside_untaken_events(fault, env, worker, customer.account, 20).await;
}

/// The batch of a group is refused. Its requests wait on the rungs, each as a message of its own,
/// and each is answered by the event that was in the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rejects_batches_delays_no_other_org() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    subscribed(&env, &key, refusing()).await;
    let usage = env.usage(customer.account, 20).await;
    let first = Request::revert(customer.account, usage, 5);
    let mut events = env.subscribe().await;
    env.publish(&first).await;
    // Its event fills the subscriber's queue.
    events.answer(&first).await;
    let mut groups = Vec::new();
    for atomic in [false, true] {
        let mut requests = Vec::new();
        for _ in 0..20 {
            let usage = env.usage(customer.account, 20).await;
            requests.push(json!({"usage_id": usage, "amount": 5}));
        }
        let account = customer.account;
        let body = json!({"billing_id": account, "atomic": atomic, "requests": requests});
        groups.push(Request::json(&body).id(&format!("atomic-{atomic}")));
    }
    let unrelated = UnrelatedRequests::new(&env).await;
    for group in &groups {
        env.publish(group).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    env.drained().await;
    assert!(worker.stop().await.success());
    let replies = env.name("replies");
    let told = env.depth(&replies).await as usize;
    let told = env.mailbox(&replies).await.take(told).await;
    for group in &groups {
        let correlation = group.properties.correlation_id();
        let told = told
            .iter()
            .filter(|message| message.properties.correlation_id() == correlation);
        let (batches, alone): (Vec<_>, Vec<_>) =
            told.partition(|message| message.json().is_array());
        let ids: HashSet<_> = alone
            .iter()
            .map(|message| message.json()["data"]["request_id"].to_string())
            .collect();
        let batch = &batches.first().expect("revertd's own queue took it").body;
        let batch = String::from_utf8_lossy(batch);
        let is_same = alone.iter().all(|message| {
            message.verdict() == "usage.reverted"
                && batch.contains(&*String::from_utf8_lossy(&message.body))
        });
        if ids.len() != 20 || !is_same {
            count.found(Finding::Differing, format!("{alone:?}, in {batch}"));
        }
    }
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    assert!(log.contains("retried=0 dead_lettered=0"), "{log}");
    let fault = "beside: a subscriber's queue that refuses batches";
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
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
