//! What a client can't do to the others: stall, flood, hold connections.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::http::*;
use crate::support::*;

/// An environment with its queues and no worker, so that a request that is taken stays in work.
async fn stage_without_worker(settings: &[(&str, &str)]) -> TestEnv {
    let (env, mut worker) = TestEnv::with_worker_set(settings).await;
    assert!(worker.stop().await.success());
    env
}

#[tokio::test]
async fn more_requests_than_may_be_in_work_are_refused_at_once() {
    let settings = [("GATEWAY__MAX_IN_FLIGHT", "1"), ("GATEWAY__TIMEOUT", "60s")];
    let env = stage_without_worker(&settings).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let gateway = env.start_gateway().await;
    let call = Call::revert(customer.account, usage, 5);
    // An address has one connection of the two.
    let address = |n| Ipv4Addr::new(127, 0, 0, n);
    let mut line = gateway.connect_from(address(2)).await;
    line.write(&call.bytes()).await;
    env.peek(&env.name("work")).await;
    let reader = call.clone().by(("reader", "s:é 😀"));
    for (n, call, status, reason) in [
        (3, &call, 429, "TOO_MANY_REQUESTS"),
        (4, &reader, 503, "SATURATED"),
    ] {
        let reply = gateway.send_from(address(n), call).await;
        assert_eq!(reply.verdict(), (status, reason.into()));
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    // Strangers are told nothing of it.
    assert_eq!(
        gateway
            .send_from(address(5), &call.clone().by(("publisher", "wrong")))
            .await
            .status,
        401
    );
    let _worker = env.start_worker().await;
    assert_eq!(line.reply().await.status, 200);
    assert_eq!(gateway.send_from(address(6), &call).await.status, 409);
    env.teardown().await;
}

#[tokio::test]
async fn further_connections_wait_until_one_ends() {
    let mut env = TestEnv::new().await;
    env.set("GATEWAY__MAX_IN_FLIGHT", "1");
    let gateway = env.start_gateway().await;
    let bytes = Call::post("{}").bytes();
    let address = |n| Ipv4Addr::new(127, 0, 0, n);
    let mut lines = [
        gateway.connect_from(address(2)).await,
        gateway.connect_from(address(3)).await,
    ];
    for line in &mut lines {
        line.write(&bytes).await;
        assert_eq!(line.reply().await.status, 400);
    }
    let mut third = gateway.connect_from(address(4)).await;
    third.write(&bytes).await;
    assert!(
        third.is_silent(Duration::from_millis(300)).await,
        "it waits"
    );
    drop(lines);
    assert_eq!(third.reply().await.status, 400);
    env.teardown().await;
}

#[tokio::test]
async fn a_connection_carries_many_requests_also_sent_ahead() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let mut usages = Vec::new();
    for _ in 0..5 {
        usages.push(env.usage(customer.account, 20).await);
    }
    let ahead: Vec<u8> = usages
        .iter()
        .enumerate()
        .flat_map(|(n, usage)| {
            let call = Call::revert(customer.account, *usage, 5).key(&format!("n-{n}"));
            call.bytes()
        })
        .collect();
    let mut line = gateway.connect().await;
    line.write(&ahead).await;
    for n in 0..5 {
        let reply = line.reply().await;
        let id = format!("n-{n}");
        assert_eq!(
            (reply.status, reply.header("x-request-id")),
            (200, Some(id.as_str()))
        );
    }
    line.write(&Call::revert(customer.account, usages[0], 5).bytes())
        .await;
    assert_eq!(line.reply().await.status, 409);
    env.teardown().await;
}

#[tokio::test]
async fn a_client_that_dawdles_is_cut_off() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let call = Call::post("{}");
    let (mut nothing, mut head, mut idle, mut body) = (
        gateway.connect().await,
        gateway.connect().await,
        gateway.connect().await,
        gateway.connect().await,
    );
    idle.write(&call.bytes()).await;
    assert_eq!(idle.reply().await.status, 400);
    let bytes = Call::post("{    }").bytes();
    body.write(&bytes[..bytes.len() - 4]).await;
    let dawdling = async {
        // A byte now and then doesn't help.
        for byte in call.head() {
            if !head.try_write(&[byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        head.ended().await
    };
    let slow_body = async {
        let began = Instant::now();
        let reply = body.reply().await;
        // Long before the time for a body as a whole is over.
        assert!(began.elapsed() < Duration::from_secs(8));
        (reply.verdict(), body.ended().await)
    };
    let (_, slow, nothing, idle) = tokio::join!(dawdling, slow_body, nothing.ended(), idle.ended());
    assert_eq!(slow, ((408, "BODY_TIMEOUT".into()), String::new()));
    assert!(
        !nothing.contains("200") && idle.is_empty(),
        "{nothing} {idle}"
    );
    // A stranger's body is not waited for.
    let stranger = Call::post("{    }").by(("publisher", "wrong"));
    let bytes = stranger.bytes();
    let mut line = gateway.connect().await;
    line.write(&bytes[..bytes.len() - 4]).await;
    assert_eq!(line.reply().await.status, 401);
    env.teardown().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let mut line = gateway.connect().await;
    let many = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    eventually("the connection is cut off", async || {
        // Once both sides' buffers are full, it can't be written until it ends.
        !line.try_write(&many).await
    })
    .await;
    assert_eq!(gateway.send(&Call::post("{}")).await.status, 400);
    env.teardown().await;
}

#[tokio::test]
async fn a_head_that_is_no_head_or_too_large_is_refused() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let large = Call::post("{}").header("X-Large", &"x".repeat(20_000));
    let many = (0..200).fold(Call::post("{}"), |call, n| {
        call.header(&format!("X-{n}"), "x")
    });
    for (bytes, said) in [
        (large.bytes(), "HTTP/1.1 431"),
        (many.bytes(), "HTTP/1.1 431"),
        (b"nonsense\r\n\r\n".to_vec(), "HTTP/1.1 400"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n".to_vec(),
            "HTTP/1.1 400",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .to_vec(),
            "HTTP/1.1 400",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
            "HTTP/1.1 400",
        ),
    ] {
        let mut line = gateway.connect().await;
        line.write(&bytes).await;
        let told = line.ended().await;
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(gateway.send(&Call::post("{}")).await.status, 400);
    env.teardown().await;
}
