//! Messages that lapin cannot parse are rejected one by one, and the other messages are answered.

use crate::support::raw::{RawConnection, long, short};
use crate::support::*;

const TEXT: &[u8] = b"\xff\xfe";

/// Properties that the client can't parse, each in its own way.
fn unreadable() -> Vec<Vec<u8>> {
    let with = |flags: u16, value: &dyn Fn(&mut Vec<u8>)| {
        let mut properties = flags.to_be_bytes().to_vec();
        value(&mut properties);
        properties
    };
    let named = |name: &[u8]| {
        let mut table = Vec::new();
        short(&mut table, name);
        table.extend(b"t\x01");
        table
    };
    let mut nested = b"\x01nF".to_vec();
    long(&mut nested, &named(TEXT));
    vec![
        with(0x0080, &|to| short(to, TEXT)),
        with(0x0400, &|to| short(to, TEXT)),
        with(0x8000, &|to| short(to, TEXT)),
        with(0x2000, &|to| long(to, &named(TEXT))),
        with(0x2000, &|to| long(to, &nested)),
    ]
}

/// A carbon copy (`CC`) under the key `revert` of a message with an invalid routing key.
fn carbon() -> Vec<u8> {
    let mut copies = vec![b'S'];
    long(&mut copies, b"revert");
    let mut table = b"\x02CCA".to_vec();
    long(&mut table, &copies);
    let mut properties = 0x2000u16.to_be_bytes().to_vec();
    long(&mut properties, &table);
    properties
}

#[tokio::test]
async fn unreadable_messages_are_rejected_one_by_one() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut raw = RawConnection::open(&env.servers.amqp).await;
    let exchange = env.name("requests");
    let mut requests = Vec::new();
    let bad = unreadable();
    for properties in &bad {
        // A body of several frames, which is more than any request may have.
        let body = vec![b'x'; 300_000];
        raw.publish(&exchange, b"revert", properties, &body).await;
        raw.publish(&exchange, b"revert", properties, b"{}").await;
        raw.publish(&exchange, TEXT, &carbon(), b"{}").await;
        raw.confirmed().await;
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20);
        env.publish(&request).await;
        requests.push(request);
    }
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    let dead = env.name("dead");
    let rejected = u32::try_from(3 * bad.len()).expect("few");
    eventually("all are dead letters", async || {
        env.depth(&dead).await == rejected
    })
    .await;
    for letter in raw.take_all(&dead).await {
        assert!(letter.headers_contain(b"rejected"), "its reason");
    }
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(log.contains("properties can't be parsed"), "{log}");
    assert!(!log.contains("paused"), "nothing waits for them: {log}");
    assert!(log.contains("redelivered=0 "), "nor comes twice: {log}");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
