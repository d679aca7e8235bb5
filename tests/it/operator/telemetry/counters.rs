//! Counters, histograms and gauges, compared with the sent requests.

use jiff::Timestamp;
use lapin::options::QueueDeleteOptions;
use uuid::Uuid;

use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

/// As if it had been published so many seconds ago.
fn published_ago(request: Request, seconds: i64) -> Request {
    let then = Timestamp::now().as_second() - seconds;
    let timestamp = u64::try_from(then).expect("after 1970");
    let properties = request.properties.clone().with_timestamp(timestamp);
    Request {
        properties,
        ..request
    }
}

#[tokio::test]
async fn each_request_is_counted_once_by_its_result() {
    let (env, mut worker) = TestEnv::with_worker_set(&[LISTEN]).await;
    let telemetry = Telemetry::of(&mut worker).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let before = telemetry.metrics().await;
    for reason in ["ALREADY_REVERTED", "MALFORMED_REQUEST"] {
        assert!(
            before.text.contains(&format!("reason=\"{reason}\"}} 0\n")),
            "each reason is there from the start: {}",
            before.text
        );
    }

    let usage = env.usage(customer.account, 20).await;
    let first = published_ago(Request::revert(customer.account, usage, 5), 60);
    let requests = [
        first.clone(),
        // Sent again, it is answered again.
        first,
        Request::revert(customer.account, usage, 5),
        Request::revert(customer.account, Uuid::new_v4(), 5),
        Request::revert(customer.account, Uuid::new_v4(), 5).single_attempt(),
        Request::raw("no JSON"),
    ];
    for request in &requests {
        env.publish(request).await;
        events.answer(request).await;
    }
    telemetry.shows("revertd_in_flight_messages", &[], 0).await;
    let page = telemetry.metrics().await;
    let requests_of = |outcome, reason| {
        page.count(
            "revertd_requests_total",
            &[("outcome", outcome), ("reason", reason)],
        )
    };
    for (outcome, reason, count) in [
        ("reverted", "", 2),
        ("rejected", "ALREADY_REVERTED", 1),
        ("rejected", "USAGE_NOT_FOUND", 2),
        ("dead_lettered", "MALFORMED_REQUEST", 1),
    ] {
        assert_eq!(requests_of(outcome, reason), count, "{outcome} {reason}");
    }
    assert_eq!(page.count("revertd_requests_total", &[]), 6, "nothing else");
    for (of, count) in [("outcome", 1), ("dead_letter", 0)] {
        assert_eq!(page.count("revertd_replays_total", &[("of", of)]), count);
    }
    for rung in ["100ms", "200ms", "300ms"] {
        assert_eq!(page.count("revertd_retries_total", &[("rung", rung)]), 1);
    }
    // Six came, one of them four times.
    let consumed = page.count("messaging_client_consumed_messages_total", &[]);
    assert_eq!(consumed, 9);
    assert_eq!(page.count("revertd_batch_size_sum", &[]), 9);
    let sent = |to: &str| {
        let labels = [("messaging_destination_name", to), ("error_type", "")];
        page.count("messaging_client_sent_messages_total", &labels)
    };
    assert_eq!(sent(&env.name("replies")), 6);
    assert_eq!(sent(&env.name("dead")), 1);
    assert_eq!(sent(&env.name("retry.100ms")), 1);
    // Those that wait on the ladder are settled once, at its end.
    assert_eq!(page.count("revertd_request_duration_seconds_count", &[]), 6);
    let ladder = page.sum("revertd_request_duration_seconds_sum", &[]);
    assert!(ladder > 0.5, "the waits on the ladder count: {ladder}");
    // Two had a timestamp, of a minute ago.
    assert_eq!(page.count("revertd_queue_wait_seconds_count", &[]), 2);
    assert_eq!(page.count("revertd_publish_to_event_seconds_count", &[]), 2);
    let waited = page.sum("revertd_queue_wait_seconds_sum", &[]);
    assert!((119.0..150.0).contains(&waited), "{waited}");
    let statements = page.count("db_client_operation_duration_seconds_count", &[]);
    assert_eq!(statements, 8, "all but the malformed one");
    let batches = page.count("messaging_process_duration_seconds_count", &[]);
    let publishes = page.count("messaging_client_operation_duration_seconds_count", &[]);
    assert_eq!((batches, publishes), (9, 9));

    // An event that is unroutable, and a copy that is not allowed.
    env.channel
        .queue_delete(
            env.name("replies").as_str().into(),
            QueueDeleteOptions::default(),
        )
        .await
        .expect("deleted");
    let last = Request::revert(customer.account, usage, 5).reply_to(&env.name("work"));
    env.publish(&last).await;
    let unroutable = [("error_type", "unroutable")];
    telemetry
        .shows("messaging_client_sent_messages_total", &unroutable, 1)
        .await;
    telemetry
        .shows("revertd_reply_to_refused_total", &[], 1)
        .await;
    telemetry.shows("revertd_in_flight_messages", &[], 0).await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    let told = log.lines().find(|line| line.contains("reply_to_refused"));
    assert!(
        told.is_some_and(|line| line.contains(&env.name("work"))),
        "{log}"
    );
    // The line that ends the process reads the same counters.
    let tally = "reverted=2 rejected=4 retried=3 dead_lettered=1 redelivered=0 unroutable=1 \
        replies_failed=1";
    assert!(worker.log().contains(tally), "{}", worker.log());
    env.teardown().await;
}

#[tokio::test]
async fn labels_take_no_value_from_a_request() {
    let (env, mut worker) = TestEnv::with_worker_set(&[LISTEN]).await;
    let telemetry = Telemetry::of(&mut worker).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let count = async || telemetry.metrics().await.text.lines().count();
    // The queues appear once they were looked at.
    telemetry.shows("revertd_consuming", &[], 1).await;
    eventually("the queues were looked at", async || {
        telemetry
            .metrics()
            .await
            .text
            .contains("revertd_queue_messages{")
    })
    .await;
    let before = count().await;
    let marker = "no-label-of-mine";
    for number in 0..5 {
        let id = format!("{marker}-{number}");
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5)
            .id(&id)
            .reply_to(&format!("replies.{id}"))
            .header(&id, lapin::types::AMQPValue::Boolean(true));
        env.publish(&request).await;
        events.answer(&request).await;
    }
    assert_eq!(count().await, before, "no series more than before");
    let page = telemetry.metrics().await;
    for secret in [
        marker.to_owned(),
        customer.account.to_string(),
        customer.org.to_string(),
    ] {
        assert!(!page.text.contains(&secret), "{secret}");
    }
    drop(worker);
    env.teardown().await;
}

#[tokio::test]
async fn queue_depths_are_shown_and_missing_queues_absent() {
    let mut env = TestEnv::new().await;
    let (name, value) = LISTEN;
    env.set(name, value);
    env.set("RETRY__DELAYS", "10m");
    let mut worker = env.start_worker().await;
    let telemetry = Telemetry::of(&mut worker).await;
    let customer = env.customer().await;
    let depth = |queue: &str| [("queue", env.name(queue))];
    for _ in 0..3 {
        let request = Request::revert(customer.account, Uuid::new_v4(), 5);
        env.publish(&request).await;
    }
    env.publish(&Request::raw("no JSON")).await;
    let shows = async |queue: &str, kind: &str, count: i64| {
        let [(key, name)] = &depth(queue);
        let labels = [(*key, name.as_str()), ("kind", kind)];
        telemetry
            .shows("revertd_queue_messages", &labels, count)
            .await;
    };
    shows("retry.10m", "retry", 3).await;
    shows("dead", "dead_letter", 1).await;
    shows("work", "work", 0).await;
    let gone = env.name("dead");
    env.channel
        .queue_delete(gone.as_str().into(), QueueDeleteOptions::default())
        .await
        .expect("deleted");
    eventually("it is absent", async || {
        let page = telemetry.metrics().await;
        let mut lines = page
            .text
            .lines()
            .filter(|line| line.starts_with("revertd_queue_messages{"));
        !lines.any(|line| line.contains(&gone)) && page.text.contains("kind=\"retry\"")
    })
    .await;
    // That it is missing ended neither the worker's connections nor its work.
    assert_eq!(telemetry.readiness().await, Ok(()));
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    drop(worker);
    env.teardown().await;
}
