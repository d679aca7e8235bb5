//! The cost of one message for the others: unreadable messages, large bodies, and processes that
//! start together.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use serde_json::json;
use tokio::time::{Instant, interval, timeout};
use uuid::Uuid;

use crate::report::{AuditResult, report_measured, seed, sized};
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::raw::{RawConnection, short};
use crate::support::*;

/// Unrelated requests a second, and the longest wait for the next event.
const RATE: u32 = 50;
const ANSWER: Duration = Duration::from_secs(30);

/// Longest that 99 of 100 unrelated requests may wait.
const P99: Duration = Duration::from_secs(1);

/// When each event came, by correlation id.
async fn listen(env: &TestEnv, events: usize) -> BTreeMap<String, Instant> {
    let connection = connect_amqp(&env.servers.amqp).await;
    let channel = connection.create_channel().await.expect("a channel");
    let qos = BasicQosOptions { global: false };
    channel.basic_qos(1000, qos).await.expect("set");
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let queue = env.name("replies");
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("consumed");
    let mut came = BTreeMap::new();
    while came.len() < events {
        let event = timeout(ANSWER, consumer.next()).await;
        let event = event
            .expect("an event comes")
            .expect("it goes on")
            .expect("read");
        let correlation = event.properties.correlation_id().as_ref();
        let correlation = correlation.expect("every event has one").to_string();
        came.entry(correlation).or_insert_with(Instant::now);
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_delay_no_other_message() {
    let seconds = sized(10, 60);
    let count = seconds * RATE as usize;
    let (env, worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let mut requests = Vec::new();
    for _ in 0..count {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 20));
    }
    let mut unreadable = 0x0080u16.to_be_bytes().to_vec();
    short(&mut unreadable, b"\xff\xfe");
    let spoiling = async {
        let mut raw = RawConnection::open(&env.servers.amqp).await;
        let mut pace = interval(Duration::from_secs(1));
        for _ in 0..seconds {
            pace.tick().await;
            let exchange = env.name("requests");
            raw.publish(&exchange, b"revert", &unreadable, b"0123456789")
                .await;
            raw.confirmed().await;
        }
    };
    let publishing = async {
        let mut pace = interval(Duration::from_secs(1) / RATE);
        let mut published = Vec::new();
        for request in &requests {
            pace.tick().await;
            published.push((request.correlation(), Instant::now()));
            env.publish(request).await;
        }
        published
    };
    let (came, published, ()) = tokio::join!(listen(&env, count), publishing, spoiling);
    let latencies = published
        .iter()
        .map(|(id, at)| came[id].duration_since(*at));
    let mut latencies: Vec<Duration> = latencies.collect();
    latencies.sort();
    let (p99, longest) = (latencies[count * 99 / 100], latencies[count - 1]);
    let dead = env.name("dead");
    eventually("all of them are dead letters", async || {
        env.depth(&dead).await as usize == seconds
    })
    .await;
    assert!(p99 < P99, "p99 {p99:?}, longest {longest:?}");
    let log = worker.log();
    assert!(!log.contains("paused"), "nothing waits for them: {log}");
    let requests = AuditResult {
        requests: count,
        ..AuditResult::default()
    };
    let measured = format!(
        "p99 {} ms, longest {} ms",
        p99.as_millis(),
        longest.as_millis()
    );
    report_measured(
        "unreadable messages, one a second",
        seconds,
        requests,
        &measured,
    );
    env.teardown().await;
}

/// The most memory that a process ever had, in MiB.
fn peak(worker: &WorkerProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

/// Fills the queue with malformed bodies and measures the memory of the worker.
async fn bodies(what: &str, count: usize, bytes: usize, most_mib: u64) {
    let (env, mut first) = TestEnv::with_worker().await;
    assert!(first.stop().await.success());
    let mut raw = RawConnection::open(&env.servers.amqp).await;
    let (exchange, body) = (env.name("requests"), vec![b'x'; bytes]);
    for _ in 0..count {
        raw.publish(&exchange, b"revert", &0u16.to_be_bytes(), &body)
            .await;
        raw.confirmed().await;
    }
    let mut worker = env.start_worker().await;
    let dead = env.name("dead");
    eventually("all of them are dead letters", async || {
        env.depth(&dead).await as usize == count
    })
    .await;
    let usage = env.usage(env.customer().await.account, 20).await;
    assert!(!usage.is_nil(), "the servers are well");
    let peak = peak(&worker);
    assert!(worker.stop().await.success());
    assert!(
        peak <= most_mib,
        "{peak} MiB for {count} bodies of {bytes} bytes"
    );
    let requests = AuditResult {
        requests: count,
        ..AuditResult::default()
    };
    report_measured(what, 1, requests, &format!("peak memory {peak} MiB"));
    env.teardown().await;
}

/// Largest memory for large bodies, in MiB: less than `config/kubernetes.yaml` gives a worker.
const LIMIT: u64 = 96;

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_of_65_kb_need_little_memory() {
    bodies("rubbish, bodies of 65 kB", sized(1500, 6000), 65_000, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_60_mib_need_little_memory() {
    bodies("rubbish, bodies of 60 MiB", sized(3, 10), 60 << 20, LIMIT).await;
}

/// Groups of 1,000 requests that wait in the queue: more bytes than a worker takes at once.
#[tokio::test(flavor = "multi_thread")]
async fn groups_of_1000_requests_need_little_memory() {
    const REQUESTS: usize = 1000;
    let groups = sized(60, 500);
    let (env, mut first) = TestEnv::with_worker().await;
    assert!(first.stop().await.success());
    let account = env.customer().await.account;
    let note = "x".repeat(500);
    for number in 0..groups {
        let usages: Vec<_> = (0..REQUESTS).map(|_| Uuid::new_v4()).collect();
        let insert = "INSERT INTO billing_transactions \
             (id, account_id, type, source, amount, description, metadata, user_id) \
             SELECT unnest($1::uuid[]), $2, 'debit', 'api.usage', 20, '', '{}', ''";
        let inserted = env.db.execute(insert, &[&usages, &account]).await;
        inserted.expect("inserted");
        let request = |usage| json!({"usage_id": usage, "amount": 5, "note": note});
        let requests: Vec<_> = usages.iter().map(request).collect();
        let atomic = number % 2 == 0;
        let body = json!({"billing_id": account, "atomic": atomic, "requests": requests});
        env.publish(&Request::json(&body).id(&format!("group-{number}")))
            .await;
    }
    let mut worker = env.start_worker().await;
    let decided = "SELECT count(*) FROM revertd.outcomes WHERE refusal IS NULL";
    for number in 1..=groups {
        eventually("the next group is reverted", async || {
            let row = env.db.query_one(decided, &[]).await.expect("read");
            usize::try_from(row.get::<_, i64>(0)).expect("few") >= number * REQUESTS
        })
        .await;
    }
    let peak = peak(&worker);
    assert!(worker.stop().await.success());
    assert!(peak <= LIMIT, "{peak} MiB for {groups} groups");
    let requests = AuditResult {
        requests: groups * REQUESTS,
        ..AuditResult::default()
    };
    let measured = format!("peak memory {peak} MiB");
    report_measured("groups of 1,000 requests", 1, requests, &measured);
    env.teardown().await;
}

/// Processes that start on a full queue share it, and return nothing to each other.
#[tokio::test(flavor = "multi_thread")]
async fn three_processes_start_on_a_full_queue_at_once() {
    let (env, mut first) = TestEnv::with_worker().await;
    assert!(first.stop().await.success());
    let load = Load::plain(&env, seed(), sized(6000, 100_000)).await;
    load.publish(&env).await;
    let began = Instant::now();
    let mut workers = vec![env.spawn_worker(), env.spawn_worker(), env.spawn_worker()];
    for worker in &mut workers {
        worker.ready().await;
    }
    env.await_events(load.requests.len()).await;
    let took = began.elapsed();
    let logs: Vec<_> = workers.iter().map(WorkerProcess::log_handle).collect();
    let count = audit(&env, &load, workers).await;
    for log in logs {
        let log = log();
        assert!(log.contains("redelivered=0 "), "nothing comes twice: {log}");
    }
    let measured = format!("all answered after {:.1} s", took.as_secs_f64());
    report_measured("three processes start on a full queue", 3, count, &measured);
    env.teardown().await;
}
