//! The response while the worker, its queues or the broker are missing.

use crate::support::http::*;
use crate::support::proxy::Ending;
use crate::support::*;

#[tokio::test]
async fn without_a_worker_it_is_504_and_the_key_retries() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    env.set("GATEWAY__TIMEOUT", "300ms");
    let gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    let response = gateway.send(&request).await;
    assert_eq!(response.verdict(), (504, "NO_ANSWER_IN_TIME".into()));
    let id = response.request_id();
    assert_eq!(response.header("x-request-id"), Some(id.as_str()));
    let named = gateway
        .send(&request.clone().key("job-1").header("X-Request-Id", "mine"))
        .await;
    assert_eq!((named.request_id().as_str(), named.status), ("job-1", 504));
    // The request went on.
    let _worker = env.start_worker().await;
    eventually("it is reverted", async || env.entries(usage).await == 1).await;
    assert_eq!(gateway.send(&request.key(&id)).await.status, 200);
    assert_eq!(env.entries(usage).await, 1);
    env.teardown().await;
}

#[tokio::test]
async fn without_a_work_queue_it_is_503_with_a_remedy() {
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let mut gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5).key("job-1");
    // Without the exchange the channel closes, and every request on it gets an answer.
    let (one, two, three) = tokio::join!(
        gateway.send(&request),
        gateway.send(&request),
        gateway.send(&request)
    );
    for response in [one, two, three] {
        assert_eq!(response.verdict(), (503, "NO_WORK_QUEUE".into()));
        assert_eq!(
            (
                response.header("retry-after"),
                response.request_id().as_str()
            ),
            (Some("1"), "job-1")
        );
    }
    let mut worker = env.start_worker().await;
    assert_eq!(gateway.send(&request).await.status, 200);
    // An exchange without a queue: the message comes back, to whomever it belongs.
    assert!(worker.stop().await.success());
    env.delete_queue(&env.name("work")).await;
    let calls = (0..20).map(|n| request.clone().key(&format!("lost-{n}")));
    let calls: Vec<_> = calls.collect();
    let replies =
        futures_util::future::join_all(calls.iter().map(|request| gateway.send(request))).await;
    for (n, response) in replies.iter().enumerate() {
        assert_eq!(response.verdict(), (503, "NO_WORK_QUEUE".into()));
        assert_eq!(response.request_id(), format!("lost-{n}"));
    }
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    assert_eq!(log.matches("no queue is bound").count(), 1, "{log}");
    env.teardown().await;
}

/// A broker of a test's own, which goes with it.
struct Broker(String);

impl Drop for Broker {
    fn drop(&mut self) {
        manage(&["destroy", &self.0]);
    }
}

#[tokio::test]
async fn an_unconfirmed_publish_is_not_reported_as_refused() {
    let name = format!(
        "confirms-{}",
        &uuid::Uuid::new_v4().simple().to_string()[..8]
    );
    let broker = Broker(name.clone());
    let mut env = TestEnv::on(Servers::instance(&name)).await;
    env.set("GATEWAY__TIMEOUT", "60s");
    let mut worker = env.start_worker().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let usage = env.usage(customer.account, 20).await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    let (work, exchange) = (env.name("work"), env.name("requests"));
    let (not_taken, unknown) = ("NO_WORK_QUEUE".to_owned(), "OUTCOME_UNKNOWN".to_owned());
    assert!(worker.stop().await.success());

    // The first message of a channel: taken, and its confirm is still to come when the broker
    // closes the channel.
    log(&name, "suspend");
    let mut first = gateway.connect().await;
    first.write(&request.clone().key("first").bytes()).await;
    is_so(&name, WAITING).await;
    env.delete_exchange(&exchange).await;
    // Connected only now: a connection without a request is closed after 10 s.
    let mut second = gateway.connect().await;
    second.write(&request.clone().key("second").bytes()).await;
    log(&name, "resume");
    eventually("it was taken", async || env.depth(&work).await == 1).await;
    assert_eq!(second.response().await.verdict(), (503, not_taken.clone()));
    let mut worker = env.start_worker().await;
    assert_eq!(first.response().await.status, 200);
    // The queue knows the channel that comes after it.
    assert_eq!(
        gateway.send(&request.clone().key("first")).await.status,
        200
    );
    assert!(worker.stop().await.success());

    // A later one: which of the two was refused is unknown.
    log(&name, "suspend");
    let mut later = gateway.connect().await;
    later.write(&request.clone().key("first").bytes()).await;
    is_so(&name, UNCONFIRMED).await;
    env.delete_exchange(&exchange).await;
    let last = gateway.send(&request.clone().key("last")).await;
    let later = later.response().await;
    log(&name, "resume");
    eventually("it was taken", async || env.depth(&work).await == 1).await;
    assert_eq!(later.verdict(), (503, unknown.clone()));
    assert_eq!(last.verdict(), (503, unknown));
    // Alone, it is certain.
    let alone = gateway.send(&request.key("alone")).await;
    assert_eq!(alone.verdict(), (503, not_taken));
    env.teardown().await;
    drop(broker);
}

/// Waits until that is so in the broker.
async fn is_so(broker: &str, what: &str) {
    eventually("it is on its way", async || {
        manage(&["ctl", broker, "eval", what]).trim() == "true"
    })
    .await;
}

/// Whether a channel waits for a queue to know it, as it does with the first message for it.
const WAITING: &str = "lists:any(fun(P) -> {_, {M, _, _}} = process_info(P, current_function), \
    not lists:member(M, [gen_server2, erlang]) end, rabbit_channel:list()).";

/// Whether a channel has a message of which the queue has not said that it has it.
const UNCONFIRMED: &str = "lists:any(fun(P) -> \
    rabbit_channel:info(P, [messages_unconfirmed]) =:= [{messages_unconfirmed, 1}] end, \
    rabbit_channel:list()).";

/// Suspends the log of a broker's quorum queues, or lets it go on.
fn log(broker: &str, what: &str) {
    let said = manage(&["ctl", broker, "eval", &format!("sys:{what}(ra_log_wal).")]);
    assert_eq!(said.trim(), "ok");
}

#[tokio::test]
async fn many_clients_without_permission_each_get_403() {
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, uuid::Uuid::new_v4(), 5);
    let calls: Vec<_> = (0..10)
        .map(|n| request.clone().key(&format!("n-{n}")))
        .collect();
    let replies =
        futures_util::future::join_all(calls.iter().map(|request| gateway.send(request))).await;
    for response in replies {
        assert_eq!(response.verdict(), (503, "NO_WORK_QUEUE".into()));
    }
    env.teardown().await;
}

#[tokio::test]
async fn a_full_work_queue_is_503() {
    let (mut env, mut worker) =
        TestEnv::with_worker_set(&[("TOPOLOGY__WORK_QUEUE_MAX_BYTES", "100")]).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    env.set("GATEWAY__TIMEOUT", "100ms");
    let gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    let mut last = None;
    eventually("the queue is full", async || {
        let response = gateway.send(&request).await;
        let full = response.status == 503;
        assert!(full || response.status == 504, "{response:?}");
        last = Some(response);
        full
    })
    .await;
    let response = last.expect("at least one");
    assert_eq!(response.verdict(), (503, "WORK_QUEUE_FULL".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    env.teardown().await;
}

#[tokio::test]
async fn a_lost_broker_is_answered_503_and_reconnected() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    let direct = env.servers.amqp.clone();
    let proxy = env.proxy_amqp();
    env.set("GATEWAY__TIMEOUT", "60s");
    let gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    let mut connection = gateway.connect().await;
    connection.write(&request.bytes()).await;
    env.peek(&env.name("work")).await;
    proxy.refuse(true);
    proxy.end(Ending::Reset);
    let response = connection.response().await;
    assert_eq!(response.verdict(), (503, "OUTCOME_UNKNOWN".into()));
    assert_eq!(response.header("retry-after"), Some("1"));
    let id = response.request_id();
    let response = gateway.send(&request.clone().key(&id)).await;
    assert_eq!(response.verdict(), (503, "BROKER_UNAVAILABLE".into()));
    proxy.refuse(false);
    env.set("AMQP__URL", &direct);
    let _worker = env.start_worker().await;
    let again = request.key(&id);
    eventually("the broker is found again", async || {
        gateway.send(&again).await.status == 200
    })
    .await;
    assert_eq!(env.entries(usage).await, 1);
    let log = gateway.process.log();
    assert!(
        log.contains("event=\"broker_unavailable\"") && log.contains("event=\"resumed\""),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_stop_finishes_requests_in_flight() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    env.set("GATEWAY__TIMEOUT", "60s");
    let mut gateway = env.start_gateway().await;
    let (mut connection, mut idle) = (gateway.connect().await, gateway.connect().await);
    idle.write(&HttpRequest::post("{}").bytes()).await;
    assert_eq!(idle.response().await.status, 400);
    connection
        .write(&HttpRequest::revert(customer.account, usage, 5).bytes())
        .await;
    env.peek(&env.name("work")).await;
    gateway.process.signal("TERM");
    assert_eq!(idle.ended().await, "", "an idle connection is closed");
    eventually("nobody listens any more", async || {
        tokio::net::TcpStream::connect(gateway.address)
            .await
            .is_err()
    })
    .await;
    assert!(!gateway.process.has_ended());
    let _worker = env.start_worker().await;
    assert_eq!(connection.response().await.status, 200);
    assert_eq!(connection.ended().await, "");
    assert!(gateway.process.ended().await.success());
    let log = gateway.process.log();
    assert!(
        log.contains("stopped") && log.contains("reverted=1 rejected=1"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_permanent_error_ends_the_start() {
    let mut env = TestEnv::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    env.set("GATEWAY__LISTEN", &address);
    let mut gateway = env.spawn_gateway();
    assert_eq!(gateway.ended().await.code(), Some(1));
    let said = gateway.log();
    assert!(
        said.contains(&address) && said.contains("set gateway.listen to"),
        "{said}"
    );
    env.set("GATEWAY__LISTEN", "127.0.0.1:0");
    let mut other = url::Url::parse(&env.servers.amqp).expect("a URL");
    other.set_password(Some("wrong")).expect("a login");
    env.set("AMQP__URL", other.as_str());
    let mut gateway = env.spawn_gateway();
    assert_eq!(gateway.ended().await.code(), Some(1));
    let said = gateway.log();
    assert!(
        said.contains("amqp.url") && !said.contains("wrong"),
        "{said}"
    );
    env.teardown().await;
}
