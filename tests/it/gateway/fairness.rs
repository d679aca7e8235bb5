//! Many connections of one client or address do not delay the others.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::gateway::GatewayProcess;
use crate::support::http::*;
use crate::support::*;

/// Longest that a request of another client may take, also on a busy machine.
const LATEST: Duration = Duration::from_secs(5);

/// Asks so many times, each over a connection of its own, and tells how long the longest took.
async fn ask(
    gateway: &GatewayProcess,
    from: Ipv4Addr,
    request: &HttpRequest,
    times: usize,
) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        let began = Instant::now();
        let response = gateway.send_from(from, request).await;
        assert_eq!(response.verdict(), (400, "INVALID_FIELD".into()));
        longest = longest.max(began.elapsed());
    }
    longest
}

/// The login of the gateway itself, as a client.
pub(super) fn other_client(env: &TestEnv) -> (String, String) {
    let url = url::Url::parse(&env.servers.amqp).expect("a URL");
    let password = logs::decoded(url.password().expect("it has one"));
    (url.username().to_owned(), password)
}

#[tokio::test]
async fn stalled_bodies_do_not_block_other_logins() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let (id, secret) = other_client(&env);
    let other = |usage| HttpRequest::revert(customer.account, usage, 5).by((&id, &secret));
    let mut usages = Vec::new();
    for _ in 0..20 {
        usages.push(env.usage(customer.account, 20).await);
    }
    let stalled = HttpRequest::post("{        }").bytes();
    let stalled = &stalled[..stalled.len() - 9];
    // Its login is made, so that the crowd's requests are looked at at once.
    assert_eq!(gateway.send(&HttpRequest::post("{}")).await.status, 400);
    let mut crowd = Vec::new();
    for n in 0..1000u16 {
        // Not all from one address, which would be cut off as such.
        let [_, of] = (n % 10 + 1).to_be_bytes();
        let from = Ipv4Addr::new(127, 0, 1, of);
        let mut connection = gateway.connect_from(from).await;
        connection.write(stalled).await;
        crowd.push(connection);
    }
    let mut longest = Duration::ZERO;
    for usage in usages {
        let began = Instant::now();
        assert_eq!(gateway.send(&other(usage)).await.status, 200);
        longest = longest.max(began.elapsed());
    }
    println!("beside 1,000 stalled bodies, the longest of 20 calls took {longest:?}");
    assert!(longest < LATEST, "{longest:?}");
    let mut told = std::collections::BTreeMap::<_, u32>::new();
    for mut connection in crowd {
        *told
            .entry(connection.response().await.verdict())
            .or_default() += 1;
    }
    println!("the crowd was told {told:?}");
    assert!(told.contains_key(&(429, "TOO_MANY_REQUESTS".into())));
    assert_eq!(told.get(&(408, "BODY_TIMEOUT".into())), Some(&100));
    assert_eq!(told.len(), 2);
    env.teardown().await;
}

#[tokio::test]
async fn connections_of_one_address_do_not_block_others() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let crowd = Ipv4Addr::new(127, 0, 0, 2);
    let mut lines = Vec::new();
    for _ in 0..2600 {
        lines.push(gateway.connect_from(crowd).await);
    }
    let other = Ipv4Addr::LOCALHOST;
    let longest = ask(&gateway, other, &HttpRequest::post("{}"), 20).await;
    println!("beside 2,600 connections, the longest of 20 calls took {longest:?}");
    assert!(longest < LATEST, "{longest:?}");
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.process.pid()));
    let open = open.expect("its files").count();
    assert!(open < 300, "{open} files are open");
    let log = gateway.process.log();
    let line = "event=\"connections_closed\"";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    drop(lines);
    env.teardown().await;
}
