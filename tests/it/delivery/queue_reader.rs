//! Reads a queue message by message while other consumers take from it.

use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions, QueuePurgeOptions};
use revertd::broker::QueueReader;
use revertd::config::Settings;
use tokio::time::timeout;

use crate::support::*;

/// Far below the timeout for a frame (30 s): an empty queue answers at once.
const SOON: Duration = Duration::from_secs(10);

/// A env whose dead-letter queue has three letters, counted and not yet read.
async fn counted() -> (TestEnv, QueueReader) {
    let (env, mut worker) = TestEnv::with_worker().await;
    assert!(worker.stop().await.success());
    let queue = env.name("dead");
    for body in ["one", "two", "three"] {
        env.publish_to(&queue, &Request::raw(body)).await;
    }
    let settings = Settings::load_from(None, env.environment()).expect("valid");
    let browse = QueueReader::open(&settings, &queue, 100).await;
    let browse = browse.expect("opens");
    assert_eq!(browse.waiting(), 3);
    (env, browse)
}

/// The bodies of the remaining messages.
async fn bodies(browse: &mut QueueReader) -> Vec<String> {
    let reading = async {
        let mut bodies = Vec::new();
        while let Some(letter) = browse.next().await.expect("reads") {
            bodies.push(String::from_utf8(letter.body).expect("UTF-8"));
        }
        bodies
    };
    timeout(SOON, reading).await.expect("it comes to an end")
}

#[tokio::test]
async fn counted_messages_that_are_gone_are_not_awaited() {
    let (env, mut browse) = counted().await;
    let queue = env.name("dead");
    let purging = env
        .channel
        .queue_purge(queue.as_str().into(), QueuePurgeOptions::default());
    assert_eq!(purging.await.expect("emptied"), 3);
    assert_eq!(bodies(&mut browse).await, Vec::<String>::new());
    assert_eq!(browse.missing(), 3);
    browse.close().await.expect("closes");
    env.teardown().await;
}

#[tokio::test]
async fn messages_held_by_another_reader_are_skipped() {
    let (env, mut browse) = counted().await;
    let queue = env.name("dead");
    let getting = env
        .channel
        .basic_get(queue.as_str().into(), BasicGetOptions { no_ack: false });
    let held = getting.await.expect("answers").expect("a letter");
    assert_eq!(held.delivery.data, b"one");
    assert_eq!(bodies(&mut browse).await, ["two", "three"]);
    assert_eq!(browse.missing(), 1);
    browse.close().await.expect("closes");
    let requeue = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    held.delivery.acker.nack(requeue).await.expect("returned");
    eventually("all three are there again", async || {
        env.depth(&queue).await == 3
    })
    .await;
    env.teardown().await;
}
