//! The sieve: what the client can't read is taken off the head of a queue, and nothing else.

use revertd::broker::{Sieved, sieve};
use revertd::settings::AmqpUrls;
use serde_json::json;

use crate::support::raw::{RawConnection, long, short};
use crate::support::*;

const TEXT: &[u8] = b"\xff\xfe";

/// Properties that the client can't parse, each in its own way, with what they show.
fn unreadable() -> Vec<(&'static str, Vec<u8>)> {
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
        ("a message id", with(0x0080, &|to| short(to, TEXT))),
        ("a correlation id", with(0x0400, &|to| short(to, TEXT))),
        ("a content type", with(0x8000, &|to| short(to, TEXT))),
        (
            "a header's name",
            with(0x2000, &|to| long(to, &named(TEXT))),
        ),
        (
            "a name within a header",
            with(0x2000, &|to| long(to, &nested)),
        ),
    ]
}

/// A queue that no worker consumes, a connection to publish to it, and its address.
async fn stage() -> (Stage, RawConnection, AmqpUrls) {
    let stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    let raw = RawConnection::open(&stage.servers.amqp).await;
    let url = serde_json::from_value(json!(stage.servers.amqp)).expect("an address");
    (stage, raw, url)
}

#[tokio::test]
async fn the_sieve_rejects_what_the_client_can_not_read_and_leaves_the_rest() {
    let (stage, mut raw, url) = stage().await;
    let (exchange, work) = (stage.name("requests"), stage.name("work"));
    let bad = unreadable();
    for (_, properties) in &bad {
        // A body of several frames, which has to be read past.
        let body = vec![b'x'; 300_000];
        raw.publish(&exchange, b"revert", properties, &body).await;
    }
    raw.confirmed().await;
    // A routing key comes before the properties, and can be as bad; the default exchange would not route it.
    let carbon = {
        let mut copies = Vec::new();
        copies.push(b'S');
        long(&mut copies, b"revert");
        let mut table = b"\x02CCA".to_vec();
        long(&mut table, &copies);
        let mut properties = 0x2000u16.to_be_bytes().to_vec();
        long(&mut properties, &table);
        properties
    };
    raw.publish(&exchange, TEXT, &carbon, b"{}").await;
    raw.confirmed().await;
    let good = Request::raw("rubbish");
    stage.publish(&good).await;
    stage.publish(&good).await;
    let (_, last) = &bad[0];
    raw.publish(&exchange, b"revert", last, b"{}").await;
    raw.confirmed().await;

    let rejected = u16::try_from(bad.len()).expect("few") + 2;
    let sieved = sieve(&url, &work, 1000).await.expect("the broker is there");
    let readable = 2;
    assert_eq!(sieved, Sieved { readable, rejected });
    eventually("what can be read is back", async || {
        stage.depth(&work).await == u32::from(readable)
    })
    .await;
    eventually("the rest are dead letters", async || {
        stage.depth(&stage.name("dead")).await == u32::from(rejected)
    })
    .await;
    for letter in raw.take_all(&stage.name("dead")).await {
        assert!(letter.headers_contain(b"rejected"), "its reason");
    }
    stage.strike().await;
}

#[tokio::test]
async fn the_sieve_looks_at_no_more_than_it_may() {
    let (stage, mut raw, url) = stage().await;
    let (exchange, work) = (stage.name("requests"), stage.name("work"));
    let (_, properties) = &unreadable()[0];
    for _ in 0..100 {
        raw.publish(&exchange, b"revert", properties, b"").await;
    }
    raw.confirmed().await;
    for limit in [3, 80] {
        let sieved = sieve(&url, &work, limit)
            .await
            .expect("the broker is there");
        let readable = 0;
        let rejected = limit;
        assert_eq!(sieved, Sieved { readable, rejected });
    }
    // A message whose rejection the queue had not seen when the channel closed comes back, and is rejected again.
    eventually("all are rejected", async || {
        let sieved = sieve(&url, &work, 50).await.expect("the broker is there");
        assert!(sieved.readable == 0 && sieved.rejected <= 50, "{sieved:?}");
        sieved.rejected == 0
    })
    .await;
    eventually("all are dead letters", async || {
        stage.depth(&stage.name("dead")).await == 100
    })
    .await;
    stage.strike().await;
}

#[tokio::test]
async fn the_sieve_says_why_it_can_not_work() {
    let (stage, _, url) = stage().await;
    let missing = stage.name("missing");
    let wrong = sieve(&url, &missing, 1).await.expect_err("no such queue");
    assert!(wrong.is_lasting(), "{wrong}");
    assert!(wrong.to_string().contains(&missing), "{wrong}");
    let mut other = url::Url::parse(&stage.servers.amqp).expect("a URL");
    other.set_password(Some("wrong")).expect("a login");
    let other = serde_json::from_value(json!(other.as_str())).expect("an address");
    let wrong = sieve(&other, &stage.name("work"), 1)
        .await
        .expect_err("no such login");
    assert!(wrong.is_lasting(), "{wrong}");
    assert!(wrong.to_string().contains("refuses the login"), "{wrong}");
    stage.strike().await;
}
