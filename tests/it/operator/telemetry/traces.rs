//! Spans to a collector, the `traceparent` of events, and the trace id of log lines.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{trace_id, traced, traceparent};
use crate::support::otlp_collector::Collector;
use crate::support::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An environment whose worker sends its spans soon.
async fn exporting(endpoint: &str) -> (TestEnv, WorkerProcess) {
    let mut env = TestEnv::new().await;
    env.set("TELEMETRY__OTLP_ENDPOINT", endpoint);
    let mut command = env.command(&["worker"]);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;
    (env, worker)
}

#[tokio::test]
async fn a_sampled_request_has_a_span_linked_to_its_batch() {
    let collector = Collector::start().await;
    let (env, mut worker) = exporting(&collector.endpoint).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let trace = trace_id();
    let parent = traceparent(&trace, "01");
    let request = traced(Request::revert(customer.account, usage, 5), &parent);
    env.publish(&request).await;
    let event = events.answer(&request).await;
    let told = event.text_header("traceparent").expect("one");
    let fields: Vec<_> = told.split('-').collect();
    assert_eq!(
        (fields[0], fields[1], fields[3]),
        ("00", trace.as_str(), "01")
    );

    let of_trace = |span: &Span| hex(&span.trace_id) == trace;
    let spans = collector.wait_for("the request's span", 1, of_trace).await;
    let own = &spans[0];
    let work = env.name("work");
    assert_eq!(own.name, format!("process {work}"));
    assert_eq!(own.kind, SpanKind::Consumer as i32);
    assert_eq!(hex(&own.parent_span_id), "b7ad6b7169203331");
    assert_eq!(hex(&own.span_id), fields[2], "the event's parent");
    let outcome = own
        .attributes
        .iter()
        .find(|pair| pair.key == "revertd.outcome");
    assert!(format!("{outcome:?}").contains("reverted"), "{outcome:?}");

    let linked = |span: &Span| span.links.iter().any(|link| hex(&link.trace_id) == trace);
    let batch = &collector.wait_for("the batch's span", 1, linked).await[0];
    assert_eq!(batch.name, format!("process {work}"));
    assert_eq!(hex(&batch.links[0].span_id), "b7ad6b7169203331");
    assert!(batch.parent_span_id.is_empty());
    assert_eq!(
        own.links[0].span_id, batch.span_id,
        "and the other way round"
    );
    let child = |span: &Span| span.parent_span_id == batch.span_id;
    let mut steps = collector.wait_for("the steps of the batch", 2, child).await;
    steps.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        ["apply", &format!("publish {}", env.name("replies"))]
    );
    for step in &steps {
        assert!(step.start_time_unix_nano >= batch.start_time_unix_nano);
        assert!(step.end_time_unix_nano <= batch.end_time_unix_nano);
        assert!(step.end_time_unix_nano > step.start_time_unix_nano);
    }
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn the_span_of_a_group_has_its_size() {
    let collector = Collector::start().await;
    let (env, mut worker) = exporting(&collector.endpoint).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    for (id, amounts, outcome) in [("same", [21, 22], "rejected"), ("mixed", [23, 20], "mixed")] {
        let requests = amounts.map(|amount| json!({"usage_id": usage, "amount": amount}));
        let body = json!({"billing_id": customer.account, "requests": requests});
        let trace = trace_id();
        env.publish(&traced(
            Request::json(&body).id(id),
            &traceparent(&trace, "01"),
        ))
        .await;
        let of_trace = |span: &Span| hex(&span.trace_id) == trace;
        let span = &collector.wait_for("the group's span", 1, of_trace).await[0];
        let attribute = |key: &str| {
            let found = span.attributes.iter().find(|pair| pair.key == key);
            format!("{:?}", found.and_then(|pair| pair.value.clone()))
        };
        assert!(attribute("revertd.group.size").contains("IntValue(2)"));
        assert!(attribute("revertd.outcome").contains(outcome), "{id}");
    }
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn an_unsampled_request_has_no_span() {
    let collector = Collector::start().await;
    let (env, mut worker) = exporting(&collector.endpoint).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let trace = trace_id();
    let parent = traceparent(&trace, "00");
    let request = traced(Request::revert(customer.account, usage, 5), &parent);
    env.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.text_header("traceparent"), Some(parent));
    // The same request, traced now: the event's body is the same to the byte.
    let sampled = traced(request.clone(), &traceparent(&trace_id(), "01"));
    env.publish(&sampled).await;
    let again = events.answer(&sampled).await;
    assert_eq!(again.body, event.body);
    assert_ne!(again.text_header("traceparent"), sampled_header(&sampled));
    // At its end the process sends the remaining spans.
    assert!(worker.stop().await.success());
    let spans = collector.spans();
    assert!(!spans.is_empty());
    assert!(spans.iter().all(|span| hex(&span.trace_id) != trace));
    env.teardown().await;
}

fn sampled_header(request: &Request) -> Option<String> {
    let headers = request.properties.headers().as_ref()?;
    match headers.inner().get("traceparent")? {
        lapin::types::AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[tokio::test]
async fn a_retried_request_stays_in_its_trace() {
    let collector = Collector::start().await;
    let (env, mut worker) = exporting(&collector.endpoint).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let trace = trace_id();
    let request = Request::revert(customer.account, Uuid::new_v4(), 5);
    let request = traced(request, &traceparent(&trace, "01"));
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "USAGE_NOT_FOUND");
    let of_trace = |span: &Span| hex(&span.trace_id) == trace;
    let attempts = collector.wait_for("four attempts", 4, of_trace).await;
    assert!(
        attempts
            .iter()
            .all(|span| hex(&span.parent_span_id) == "b7ad6b7169203331")
    );
    let malformed = trace_id();
    let request = traced(Request::raw("no JSON"), &traceparent(&malformed, "01"));
    env.publish(&request).await;
    events.answer(&request).await;
    let of_trace = |span: &Span| hex(&span.trace_id) == malformed;
    let spans = collector
        .wait_for("the dead letter's span", 1, of_trace)
        .await;
    let status = spans[0].status.as_ref().expect("a status");
    assert_eq!(status.code, StatusCode::Error as i32);
    assert_eq!(status.message, "MALFORMED_REQUEST");
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn a_missing_collector_delays_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let (env, mut worker) = exporting(&endpoint).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let ask = async |events: &mut Mailbox| {
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5);
        let request = traced(request, &traceparent(&trace_id(), "01"));
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    };
    ask(&mut events).await;
    worker.logged("spans are dropped").await;
    for _ in 0..5 {
        ask(&mut events).await;
    }
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert_eq!(log.matches("spans are dropped").count(), 1, "{log}");
    assert!(log.contains(&endpoint), "{log}");
    env.teardown().await;
}

#[tokio::test]
async fn log_lines_of_a_traced_request_have_its_trace_id() {
    let mut env = TestEnv::new().await;
    env.set("TELEMETRY__LOG_FORMAT", "json");
    let mut worker = WorkerProcess::spawn(env.command(&["worker"]));
    worker.logged("\"ready\"").await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let before = worker.log().lines().count();
    let usage = env.usage(customer.account, 20).await;
    let good = traced(
        Request::revert(customer.account, usage, 5),
        &traceparent(&trace_id(), "01"),
    );
    let (dead, untraced, lost) = (trace_id(), "no trace", trace_id());
    let bad = traced(Request::raw("no JSON"), &traceparent(&dead, "00"));
    let also_bad = Request::raw("nor here").id(untraced);
    for request in [&good, &bad, &also_bad] {
        env.publish(request).await;
        events.answer(request).await;
    }
    let delete = lapin::options::QueueDeleteOptions::default();
    env.channel
        .queue_delete(env.name("replies").as_str().into(), delete)
        .await
        .expect("deleted");
    env.publish(&traced(good.clone(), &traceparent(&lost, "00")))
        .await;
    worker.logged("no queue is bound").await;
    let log = worker.log();
    let lines: Vec<Value> = log
        .lines()
        .skip(before)
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["message"].as_str().expect("text"), &line["trace_id"]))
        .collect();
    let [(first, first_trace), (second, second_trace)] = &told[..] else {
        panic!("a line a minute for each kind of failure, and no other: {log}")
    };
    assert!(first.starts_with("dead-lettered"), "{first}");
    assert_eq!(**first_trace, Value::from(dead));
    assert!(second.starts_with("no queue is bound"), "{second}");
    assert_eq!(**second_trace, Value::from(lost));
    drop(worker);
    env.teardown().await;
}
