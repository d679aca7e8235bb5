//! `reply_to`: the requester gets a copy of the event.

use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::support::*;

async fn queue(env: &TestEnv, name: &str, arguments: &[(&str, AMQPValue)]) -> String {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let options = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let declared = env.channel.queue_declare(name.into(), options, table).await;
    declared.expect("declared").name().to_string()
}

#[tokio::test]
async fn the_event_goes_to_an_allowed_reply_queue() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    for name in [String::new(), format!("replies.{}", env.prefix)] {
        let queue = queue(&env, &name, &[]).await;
        let mut mine = env.mailbox(&queue).await;
        let usage = env.usage(customer.account, 20).await;
        for request in [
            Request::revert(customer.account, usage, 5),
            Request::revert(customer.account, usage, 5),
            Request::raw("rubbish"),
        ] {
            let request = request.reply_to(&queue);
            env.publish(&request).await;
            let event = events.answer(&request).await;
            let copy = mine.answer(&request).await;
            assert_eq!(copy.body, event.body);
            assert_eq!(copy.properties, event.properties);
        }
    }
    env.teardown().await;
}

#[tokio::test]
async fn direct_reply_to_works() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let direct = "amq.rabbitmq.reply-to";
    let mut replies = env
        .channel
        .basic_consume(direct.into(), "".into(), options, FieldTable::default())
        .await
        .expect("consumed");
    let request = Request::revert(customer.account, usage, 5).reply_to(direct);
    env.publish(&request).await;
    let reply = tokio::time::timeout(TIMEOUT, futures_util::StreamExt::next(&mut replies)).await;
    let reply = reply.expect("in time").expect("a reply").expect("received");
    let event: serde_json::Value = serde_json::from_slice(&reply.data).expect("JSON");
    assert_eq!(event["type"], "usage.reverted");
    assert!(worker.stop().await.success());
    assert!(
        worker.log().contains("replies_failed=0"),
        "{}",
        worker.log()
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_bad_reply_to_delays_nothing() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let (one, text) = (AMQPValue::LongInt(0), |text: &str| {
        AMQPValue::LongString(text.into())
    });
    let full = [
        ("x-max-length", one),
        ("x-overflow", text("reject-publish")),
    ];
    let full = queue(&env, &format!("replies.full.{}", env.prefix), &full).await;
    let private = queue(&env, &format!("private.{}", env.prefix), &[]).await;
    let names = [
        env.name("work"),
        env.name("dead"),
        env.name("replies"),
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
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5).reply_to(name);
        env.publish(&request).await;
        assert_eq!(
            events.answer(&request).await.verdict(),
            "usage.reverted",
            "{name}"
        );
    }
    // And who asks properly right after still gets his copy.
    let queue = queue(&env, "", &[]).await;
    let mut mine = env.mailbox(&queue).await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 5).reply_to(&queue);
    env.publish(&request).await;
    mine.answer(&request).await;
    let options = lapin::options::BasicGetOptions { no_ack: true };
    let copy = env
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
    env.teardown().await;
}

#[tokio::test]
async fn the_event_has_trace_context_and_message_id() {
    let (env, _worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (sent, told) in [
        (trace, Some(trace)),
        (
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            None,
        ),
        ("nonsense", None),
    ] {
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 5)
            .header("traceparent", AMQPValue::LongString(sent.into()));
        env.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.text_header("traceparent").as_deref(), told);
    }
    // Without a correlation id, the message id is it.
    let usage = env.usage(customer.account, 20).await;
    let mut request = Request::revert(customer.account, usage, 5).id("job-9");
    request.properties = lapin::BasicProperties::default().with_message_id("job-9".into());
    env.publish(&request).await;
    assert_eq!(events.correlated("job-9").await.verdict(), "usage.reverted");
    env.teardown().await;
}

/// Requests whose events the broker takes for one queue and refuses for another, which is full.
async fn refused_events(env: &TestEnv) -> (String, Vec<Request>) {
    let customer = env.customer().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let limits = [
        ("x-max-length", AMQPValue::LongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    let full = queue(env, &format!("full.{}", env.prefix), &limits).await;
    env.channel
        .queue_bind(
            full.as_str().into(),
            env.name("replies").into(),
            "result.#".into(),
            lapin::options::QueueBindOptions { nowait: false },
            FieldTable::default(),
        )
        .await
        .expect("bound");
    let mut requests = Vec::new();
    for _ in 0..5 {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 20));
        env.publish(requests.last().expect("pushed")).await;
    }
    (full, requests)
}

#[tokio::test]
async fn a_full_subscriber_queue_loses_nothing() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let (full, requests) = refused_events(&env).await;
    worker.logged("a queue refused messages").await;
    let delete = lapin::options::QueueDeleteOptions::default();
    env.channel
        .queue_delete(full.as_str().into(), delete)
        .await
        .expect("deleted");
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    env.drained().await;
    assert!(worker.stop().await.success(), "everything is settled");
    assert_eq!(env.depth(&env.name("work")).await, 0);
    assert!(worker.log().contains("reverted=5 "), "{}", worker.log());
    env.teardown().await;
}

#[tokio::test]
async fn a_request_is_acknowledged_after_the_confirm() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (full, requests) = refused_events(&env).await;
    worker.logged("a queue refused messages").await;
    worker.kill();
    // The requests are decided and half of their events published. They are in the work queue or on
    // a rung, and the next worker gets them again.
    let delete = lapin::options::QueueDeleteOptions::default();
    env.channel
        .queue_delete(full.as_str().into(), delete)
        .await
        .expect("deleted");
    let mut events = env.events().await;
    let mut next = env.start_worker().await;
    let mut told = std::collections::HashMap::new();
    for request in &requests {
        told.insert(request.correlation(), events.answer(request).await.body);
    }
    env.drained().await;
    assert!(next.stop().await.success());
    assert_eq!(env.depth(&env.name("work")).await, 0);
    // Repeated events are identical.
    while env.depth(&env.name("replies")).await > 0 || events.has_waiting() {
        let again = events.next().await;
        let correlation = again
            .properties
            .correlation_id()
            .clone()
            .expect("set")
            .to_string();
        assert_eq!(told[&correlation], again.body);
    }
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
