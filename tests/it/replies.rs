//! `reply_to`: a copy for who asked, and nothing more.

use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::support::*;

async fn queue(stage: &Stage, name: &str, arguments: &[(&str, AMQPValue)]) -> String {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let options = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let declared = stage
        .channel
        .queue_declare(name.into(), options, table)
        .await;
    declared.expect("declared").name().to_string()
}

#[tokio::test]
async fn the_event_goes_to_a_reply_queue_that_may_be_named() {
    let (stage, _worker) = Stage::with_worker().await;
    let (mut events, customer) = (stage.events().await, stage.customer().await);
    for name in [String::new(), format!("replies.{}", stage.prefix)] {
        let queue = queue(&stage, &name, &[]).await;
        let mut mine = stage.mailbox(&queue).await;
        let usage = stage.usage(customer.account, 20).await;
        for request in [
            Request::revert(customer.account, usage, 5),
            Request::revert(customer.account, usage, 5),
            Request::raw("rubbish"),
        ] {
            let request = request.reply_to(&queue);
            stage.publish(&request).await;
            let event = events.answer(&request).await;
            let copy = mine.answer(&request).await;
            assert_eq!(copy.body, event.body);
            assert_eq!(copy.properties, event.properties);
        }
    }
    stage.strike().await;
}

#[tokio::test]
async fn direct_reply_to_works() {
    let (stage, mut worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let direct = "amq.rabbitmq.reply-to";
    let mut replies = stage
        .channel
        .basic_consume(direct.into(), "".into(), options, FieldTable::default())
        .await
        .expect("consumed");
    let request = Request::revert(customer.account, usage, 5).reply_to(direct);
    stage.publish(&request).await;
    let reply = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut replies)).await;
    let reply = reply.expect("in time").expect("a reply").expect("received");
    let event: serde_json::Value = serde_json::from_slice(&reply.data).expect("JSON");
    assert_eq!(event["type"], "usage.reverted");
    assert!(worker.stop().await.success());
    assert!(
        worker.log().contains("replies_failed=0"),
        "{}",
        worker.log()
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_reply_to_that_may_not_be_named_or_does_not_take_it_hinders_nothing() {
    let (stage, mut worker) = Stage::with_worker().await;
    let (mut events, customer) = (stage.events().await, stage.customer().await);
    let (one, text) = (AMQPValue::LongInt(0), |text: &str| {
        AMQPValue::LongString(text.into())
    });
    let full = [
        ("x-max-length", one),
        ("x-overflow", text("reject-publish")),
    ];
    let full = queue(&stage, &format!("replies.full.{}", stage.prefix), &full).await;
    let private = queue(&stage, &format!("private.{}", stage.prefix), &[]).await;
    let names = [
        stage.name("work"),
        stage.name("dead"),
        stage.name("replies"),
        private.clone(),
        full,
        "replies.nobody".into(),
        "amq.gen-gone".into(),
        "amq.rabbitmq.reply-to.nonsense".into(),
        "amq.rabbitmq.reply-to.".into(),
        "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA4OTQ5MzcwMAAAA0EAAAAAY3V.AAAA==".into(),
        "x".repeat(255),
    ];
    for name in &names {
        let usage = stage.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5).reply_to(name);
        stage.publish(&request).await;
        assert_eq!(
            events.answer(&request).await.verdict(),
            "usage.reverted",
            "{name}"
        );
    }
    // And who asks properly right after still gets his copy.
    let queue = queue(&stage, "", &[]).await;
    let mut mine = stage.mailbox(&queue).await;
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5).reply_to(&queue);
    stage.publish(&request).await;
    mine.answer(&request).await;
    let options = lapin::options::BasicGetOptions { no_ack: true };
    let copy = stage
        .channel
        .basic_get(private.as_str().into(), options)
        .await
        .expect("read");
    assert!(copy.is_none(), "a queue that may not be named got {copy:?}");
    assert!(worker.stop().await.success());
    let log = worker.log();
    let (_, failed) = log.split_once("replies_failed=").expect("the tally");
    let failed: usize = failed.trim().parse().expect("a number");
    // The broker may confirm a copy to a forged direct reply-to before it breaks off.
    assert!(
        (names.len() - 3..=names.len()).contains(&failed),
        "{failed}"
    );
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    stage.strike().await;
}

#[tokio::test]
async fn the_trace_context_and_the_message_id_come_along() {
    let (stage, _worker) = Stage::with_worker().await;
    let (mut events, customer) = (stage.events().await, stage.customer().await);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (sent, told) in [
        (trace, Some(trace)),
        (
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            None,
        ),
        ("nonsense", None),
    ] {
        let usage = stage.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5)
            .header("traceparent", AMQPValue::LongString(sent.into()));
        stage.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.text_header("traceparent").as_deref(), told);
    }
    // Without a correlation id, the message id is it.
    let usage = stage.usage(customer.account, 20).await;
    let mut request = Request::revert(customer.account, usage, 5).id("job-9");
    request.properties = lapin::BasicProperties::default().with_message_id("job-9".into());
    stage.publish(&request).await;
    assert_eq!(events.correlated("job-9").await.verdict(), "usage.reverted");
    stage.strike().await;
}

/// Requests whose events the broker takes for one queue and refuses for another, which is full.
async fn refused_events(stage: &Stage) -> (String, Vec<Request>) {
    let customer = stage.customer().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let limits = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    let full = queue(stage, &format!("full.{}", stage.prefix), &limits).await;
    stage
        .channel
        .queue_bind(
            full.as_str().into(),
            stage.name("replies").into(),
            "result.#".into(),
            lapin::options::QueueBindOptions { nowait: false },
            FieldTable::default(),
        )
        .await
        .expect("bound");
    let mut requests = Vec::new();
    for _ in 0..5 {
        let usage = stage.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 20));
        stage.publish(requests.last().expect("pushed")).await;
    }
    (full, requests)
}

#[tokio::test]
async fn a_full_queue_of_somebody_elses_delays_its_requests_and_nothing_is_lost() {
    let (stage, mut worker) = Stage::with_worker().await;
    let mut events = stage.events().await;
    let (full, requests) = refused_events(&stage).await;
    worker.logged("a queue refused messages").await;
    let delete = lapin::options::QueueDeleteOptions::default();
    stage
        .channel
        .queue_delete(full.as_str().into(), delete)
        .await
        .expect("deleted");
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    stage.drained().await;
    assert!(worker.stop().await.success(), "everything is settled");
    assert_eq!(stage.depth(&stage.name("work")).await, 0);
    assert!(worker.log().contains("reverted=5 "), "{}", worker.log());
    stage.strike().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_event_is_confirmed() {
    let (stage, mut worker) = Stage::with_worker().await;
    let (full, requests) = refused_events(&stage).await;
    worker.logged("a queue refused messages").await;
    worker.kill();
    // Decided and half told, and in the work queue or on a rung: the next worker is given them again.
    let delete = lapin::options::QueueDeleteOptions::default();
    stage
        .channel
        .queue_delete(full.as_str().into(), delete)
        .await
        .expect("deleted");
    let mut events = stage.events().await;
    let mut next = stage.start_worker().await;
    let mut told = std::collections::HashMap::new();
    for request in &requests {
        told.insert(request.correlation(), events.answer(request).await.body);
    }
    stage.drained().await;
    assert!(next.stop().await.success());
    assert_eq!(stage.depth(&stage.name("work")).await, 0);
    // And whatever is told twice is told in the same words.
    while stage.depth(&stage.name("replies")).await > 0 || events.has_waiting() {
        let again = events.next().await;
        let correlation = again
            .properties
            .correlation_id()
            .clone()
            .expect("set")
            .to_string();
        assert_eq!(told[&correlation], again.body);
    }
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}
