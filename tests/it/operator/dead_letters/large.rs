//! Dead letters of 100 MiB, as the broker writes them: a list that counted them reads them.

use std::process::Output;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::Value;

use crate::support::dead_letters::DeadLetter;
use crate::support::*;

const LARGE: usize = 100 << 20;

fn run(env: &TestEnv, arguments: &[&str]) -> Output {
    let arguments = [&["dead-letters"], arguments].concat();
    env.command(&arguments).output().expect("runs")
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}

/// Puts such letters into the queue, one after the other: in memory there is one body.
async fn large(env: &TestEnv, count: usize, body: &[u8]) {
    let queue = env.name("dead");
    for _ in 0..count {
        let confirm = env.channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            body,
            BasicProperties::default().with_delivery_mode(2),
        );
        let confirm = confirm.await.expect("written");
        confirm.await.expect("confirmed");
    }
}

#[tokio::test]
async fn large_dead_letters_are_listed_and_discarded() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let body = vec![b'x'; LARGE];
    large(&env, 10, &body).await;
    let listed = run(&env, &["list"]);
    assert!(text(&listed).contains("10 letters"), "{}", text(&listed));
    assert!(listed.status.success());
    let discarded = run(&env, &["discard", "--all", "--yes", "--why", "too large"]);
    let stderr = text(&discarded);
    assert!(stderr.contains("discarded 10 letters"), "{stderr}");
    assert!(discarded.status.success());

    // Among many small ones.
    for _ in 0..2 {
        env.put_dead_letters(&vec![DeadLetter::of(b"{}"); 69]).await;
        large(&env, 1, &body).await;
    }
    let listed = run(&env, &["list", "--output", "json"]);
    let stderr = text(&listed);
    assert!(listed.status.success(), "{stderr}");
    let sizes = stderr.lines().map(|line| {
        let letter: Value = serde_json::from_str(line).expect("an object a line");
        letter["body_bytes"].as_u64().expect("a number")
    });
    let (large, small): (Vec<_>, Vec<_>) = sizes.partition(|size| *size == LARGE as u64);
    assert_eq!((large.len(), small.len()), (2, 138));
    env.teardown().await;
}

/// The second letter is counted, and gone once the first is taken off the head.
#[tokio::test]
async fn dead_letters_counted_but_not_read_are_reported() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let queue = env.name("dead");
    let mut expiring = Request::raw("{}").id("expiring");
    expiring.properties = expiring.properties.with_expiration("1".into());
    env.publish_to(&queue, &Request::raw("{}").id("kept")).await;
    env.publish_to(&queue, &expiring).await;
    for arguments in [&["list"][..], &["show", "expiring"]] {
        let output = run(&env, arguments);
        let stderr = text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        let counted = stderr.contains("1 of the 2 letters");
        assert!(counted, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("no letters"), "{arguments:?}: {stderr}");
        env.publish_to(&queue, &expiring).await;
    }
    let discarded = run(&env, &["discard", "--all", "--yes", "--why", "x"]);
    let stderr = text(&discarded);
    assert!(stderr.contains("discarded 1 letter"), "{stderr}");
    assert!(stderr.contains("1 of the 2 letters"), "{stderr}");
    assert_eq!(discarded.status.code(), Some(1), "{stderr}");
    env.teardown().await;
}
