//! Slow, silent and greedy clients: bounds on heads, bodies, connections and requests in flight.

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
async fn requests_above_max_in_flight_are_refused() {
    let settings = [("GATEWAY__MAX_IN_FLIGHT", "1"), ("GATEWAY__TIMEOUT", "60s")];
    let env = stage_without_worker(&settings).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    // An address has one connection of the two.
    let address = |n| Ipv4Addr::new(127, 0, 0, n);
    let mut connection = gateway.connect_from(address(2)).await;
    connection.write(&request.bytes()).await;
    env.peek(&env.name("work")).await;
    let reader = request.clone().by(("reader", "s:é 😀"));
    for (n, request, status, reason) in [
        (3, &request, 429, "TOO_MANY_REQUESTS"),
        (4, &reader, 503, "SATURATED"),
    ] {
        let response = gateway.send_from(address(n), request).await;
        assert_eq!(response.verdict(), (status, reason.into()));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    // The answer to a stranger does not reveal it.
    assert_eq!(
        gateway
            .send_from(address(5), &request.clone().by(("publisher", "wrong")))
            .await
            .status,
        401
    );
    let _worker = env.start_worker().await;
    assert_eq!(connection.response().await.status, 200);
    assert_eq!(gateway.send_from(address(6), &request).await.status, 409);
    env.teardown().await;
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let mut env = TestEnv::new().await;
    env.set("GATEWAY__MAX_IN_FLIGHT", "1");
    let gateway = env.start_gateway().await;
    let bytes = HttpRequest::post("{}").bytes();
    let address = |n| Ipv4Addr::new(127, 0, 0, n);
    let mut lines = [
        gateway.connect_from(address(2)).await,
        gateway.connect_from(address(3)).await,
    ];
    for connection in &mut lines {
        connection.write(&bytes).await;
        assert_eq!(connection.response().await.status, 400);
    }
    let mut third = gateway.connect_from(address(4)).await;
    third.write(&bytes).await;
    assert!(
        third.is_silent(Duration::from_millis(300)).await,
        "it waits"
    );
    drop(lines);
    assert_eq!(third.response().await.status, 400);
    env.teardown().await;
}

#[tokio::test]
async fn a_connection_carries_pipelined_requests() {
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
            let request = HttpRequest::revert(customer.account, *usage, 5).key(&format!("n-{n}"));
            request.bytes()
        })
        .collect();
    let mut connection = gateway.connect().await;
    connection.write(&ahead).await;
    for n in 0..5 {
        let response = connection.response().await;
        let id = format!("n-{n}");
        assert_eq!(
            (response.status, response.header("x-request-id")),
            (200, Some(id.as_str()))
        );
    }
    connection
        .write(&HttpRequest::revert(customer.account, usages[0], 5).bytes())
        .await;
    assert_eq!(connection.response().await.status, 409);
    env.teardown().await;
}

#[tokio::test]
async fn a_slow_client_is_disconnected() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let request = HttpRequest::post("{}");
    let (mut nothing, mut head, mut idle, mut body) = (
        gateway.connect().await,
        gateway.connect().await,
        gateway.connect().await,
        gateway.connect().await,
    );
    idle.write(&request.bytes()).await;
    assert_eq!(idle.response().await.status, 400);
    let bytes = HttpRequest::post("{    }").bytes();
    body.write(&bytes[..bytes.len() - 4]).await;
    let dawdling = async {
        // A byte now and then doesn't help.
        for byte in request.head() {
            if !head.try_write(&[byte]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        head.ended().await
    };
    let slow_body = async {
        let began = Instant::now();
        let response = body.response().await;
        // Long before the time for a body as a whole is over.
        assert!(began.elapsed() < Duration::from_secs(8));
        (response.verdict(), body.ended().await)
    };
    let (_, slow, nothing, idle) = tokio::join!(dawdling, slow_body, nothing.ended(), idle.ended());
    assert_eq!(slow, ((408, "BODY_TIMEOUT".into()), String::new()));
    assert!(
        !nothing.contains("200") && idle.is_empty(),
        "{nothing} {idle}"
    );
    // A stranger's body is not waited for.
    let stranger = HttpRequest::post("{    }").by(("publisher", "wrong"));
    let bytes = stranger.bytes();
    let mut connection = gateway.connect().await;
    connection.write(&bytes[..bytes.len() - 4]).await;
    assert_eq!(connection.response().await.status, 401);
    env.teardown().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let mut connection = gateway.connect().await;
    let many = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    eventually("the connection is cut off", async || {
        // Once both sides' buffers are full, it can't be written until it ends.
        !connection.try_write(&many).await
    })
    .await;
    assert_eq!(gateway.send(&HttpRequest::post("{}")).await.status, 400);
    env.teardown().await;
}

#[tokio::test]
async fn an_invalid_or_too_large_head_is_refused() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let large = HttpRequest::post("{}").header("X-Large", &"x".repeat(20_000));
    let many = (0..200).fold(HttpRequest::post("{}"), |request, n| {
        request.header(&format!("X-{n}"), "x")
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
        let mut connection = gateway.connect().await;
        connection.write(&bytes).await;
        let told = connection.ended().await;
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(gateway.send(&HttpRequest::post("{}")).await.status, 400);
    env.teardown().await;
}
