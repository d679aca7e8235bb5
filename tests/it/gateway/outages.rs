//! What is answered when somebody is missing: the worker, its queues, the broker.

use crate::support::http::*;
use crate::support::proxy::Ending;
use crate::support::*;

#[tokio::test]
async fn without_a_worker_it_is_504_and_the_same_key_gives_the_answer_later() {
    let (mut stage, mut worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    stage.set("GATEWAY__TIMEOUT", "300ms");
    let gateway = stage.start_gateway().await;
    let call = Call::revert(customer.account, usage, 5);
    let reply = gateway.send(&call).await;
    assert_eq!(reply.verdict(), (504, "NO_ANSWER_IN_TIME".into()));
    let id = reply.request_id();
    assert_eq!(reply.header("x-request-id"), Some(id.as_str()));
    let named = gateway
        .send(&call.clone().key("job-1").header("X-Request-Id", "mine"))
        .await;
    assert_eq!((named.request_id().as_str(), named.status), ("job-1", 504));
    // The request went on.
    let _worker = stage.start_worker().await;
    eventually("it is reverted", async || stage.entries(usage).await == 1).await;
    assert_eq!(gateway.send(&call.key(&id)).await.status, 200);
    assert_eq!(stage.entries(usage).await, 1);
    stage.strike().await;
}

#[tokio::test]
async fn without_a_work_queue_it_is_503_and_says_what_to_do() {
    let stage = Stage::new().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let mut gateway = stage.start_gateway().await;
    let call = Call::revert(customer.account, usage, 5).key("job-1");
    // No exchange at all, which closes the channel; all who share it are told.
    let (one, two, three) = tokio::join!(
        gateway.send(&call),
        gateway.send(&call),
        gateway.send(&call)
    );
    for reply in [one, two, three] {
        assert_eq!(reply.verdict(), (503, "NO_WORK_QUEUE".into()));
        assert_eq!(
            (reply.header("retry-after"), reply.request_id().as_str()),
            (Some("1"), "job-1")
        );
    }
    let mut worker = stage.start_worker().await;
    assert_eq!(gateway.send(&call).await.status, 200);
    // An exchange without a queue: the message comes back, to whomever it belongs.
    assert!(worker.stop().await.success());
    stage.delete_queue(&stage.name("work")).await;
    let calls = (0..20).map(|n| call.clone().key(&format!("lost-{n}")));
    let calls: Vec<_> = calls.collect();
    let replies = futures_util::future::join_all(calls.iter().map(|call| gateway.send(call))).await;
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(reply.verdict(), (503, "NO_WORK_QUEUE".into()));
        assert_eq!(reply.request_id(), format!("lost-{n}"));
    }
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    assert_eq!(log.matches("no queue is bound").count(), 1, "{log}");
    stage.strike().await;
}

/// A broker of a test's own, which goes with it.
struct Broker(String);

impl Drop for Broker {
    fn drop(&mut self) {
        manage(&["destroy", &self.0]);
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_told_as_not_taken() {
    let name = format!(
        "confirms-{}",
        &uuid::Uuid::new_v4().simple().to_string()[..8]
    );
    let broker = Broker(name.clone());
    let mut stage = Stage::on(Servers::instance(&name)).await;
    stage.set("GATEWAY__TIMEOUT", "60s");
    let mut worker = stage.start_worker().await;
    let customer = stage.customer().await;
    let gateway = stage.start_gateway().await;
    let usage = stage.usage(customer.account, 20).await;
    let call = Call::revert(customer.account, usage, 5);
    let (work, exchange) = (stage.name("work"), stage.name("requests"));
    let (not_taken, unknown) = ("NO_WORK_QUEUE".to_owned(), "OUTCOME_UNKNOWN".to_owned());
    assert!(worker.stop().await.success());

    // The first message of a channel: taken, and its confirm is still to come when the broker
    // closes the channel.
    log(&name, "suspend");
    let [mut first, mut second] = [gateway.connect().await, gateway.connect().await];
    first.write(&call.clone().key("first").bytes()).await;
    is_so(&name, WAITING).await;
    stage.delete_exchange(&exchange).await;
    second.write(&call.clone().key("second").bytes()).await;
    log(&name, "resume");
    eventually("it was taken", async || stage.depth(&work).await == 1).await;
    assert_eq!(second.reply().await.verdict(), (503, not_taken.clone()));
    let mut worker = stage.start_worker().await;
    assert_eq!(first.reply().await.status, 200);
    // The queue knows the channel that comes after it.
    assert_eq!(gateway.send(&call.clone().key("first")).await.status, 200);
    assert!(worker.stop().await.success());

    // A later one: which of the two is not taken, nobody can say.
    log(&name, "suspend");
    let mut later = gateway.connect().await;
    later.write(&call.clone().key("first").bytes()).await;
    is_so(&name, UNCONFIRMED).await;
    stage.delete_exchange(&exchange).await;
    let last = gateway.send(&call.clone().key("last")).await;
    let later = later.reply().await;
    log(&name, "resume");
    eventually("it was taken", async || stage.depth(&work).await == 1).await;
    assert_eq!(later.verdict(), (503, unknown.clone()));
    assert_eq!(last.verdict(), (503, unknown));
    // Alone, it is certain.
    let alone = gateway.send(&call.key("alone")).await;
    assert_eq!(alone.verdict(), (503, not_taken));
    stage.strike().await;
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
    rabbit_channel:info(P, [messages_unconfirmed]) =:= [{messages_unconfirmed, 1}] end, rabbit_channel:list()).";

/// Suspends the log of a broker's quorum queues, or lets it go on.
fn log(broker: &str, what: &str) {
    let said = manage(&["ctl", broker, "eval", &format!("sys:{what}(ra_log_wal).")]);
    assert_eq!(said.trim(), "ok");
}

#[tokio::test]
async fn many_who_may_not_publish_are_all_told_so() {
    let stage = Stage::new().await;
    let customer = stage.customer().await;
    let gateway = stage.start_gateway().await;
    let call = Call::revert(customer.account, uuid::Uuid::new_v4(), 5);
    let calls: Vec<_> = (0..10)
        .map(|n| call.clone().key(&format!("n-{n}")))
        .collect();
    let replies = futures_util::future::join_all(calls.iter().map(|call| gateway.send(call))).await;
    for reply in replies {
        assert_eq!(reply.verdict(), (503, "NO_WORK_QUEUE".into()));
    }
    stage.strike().await;
}

#[tokio::test]
async fn a_full_work_queue_is_503() {
    let (mut stage, mut worker) =
        Stage::with_worker_set(&[("TOPOLOGY__WORK_QUEUE_MAX_BYTES", "100")]).await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    stage.set("GATEWAY__TIMEOUT", "100ms");
    let gateway = stage.start_gateway().await;
    let call = Call::revert(customer.account, usage, 5);
    let mut last = None;
    eventually("the queue is full", async || {
        let reply = gateway.send(&call).await;
        let full = reply.status == 503;
        assert!(full || reply.status == 504, "{reply:?}");
        last = Some(reply);
        full
    })
    .await;
    let reply = last.expect("at least one");
    assert_eq!(reply.verdict(), (503, "WORK_QUEUE_FULL".into()));
    assert_eq!(reply.header("retry-after"), Some("1"));
    stage.strike().await;
}

#[tokio::test]
async fn a_lost_broker_is_told_at_once_and_found_again() {
    let (mut stage, mut worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    let direct = stage.servers.amqp.clone();
    let proxy = stage.proxy_amqp();
    stage.set("GATEWAY__TIMEOUT", "60s");
    let gateway = stage.start_gateway().await;
    let call = Call::revert(customer.account, usage, 5);
    let mut line = gateway.connect().await;
    line.write(&call.bytes()).await;
    stage.peek(&stage.name("work")).await;
    proxy.refuse(true);
    proxy.end(Ending::Reset);
    let reply = line.reply().await;
    assert_eq!(reply.verdict(), (503, "OUTCOME_UNKNOWN".into()));
    assert_eq!(reply.header("retry-after"), Some("1"));
    let id = reply.request_id();
    let reply = gateway.send(&call.clone().key(&id)).await;
    assert_eq!(reply.verdict(), (503, "BROKER_UNAVAILABLE".into()));
    proxy.refuse(false);
    stage.set("AMQP__URL", &direct);
    let _worker = stage.start_worker().await;
    let again = call.key(&id);
    eventually("the broker is found again", async || {
        gateway.send(&again).await.status == 200
    })
    .await;
    assert_eq!(stage.entries(usage).await, 1);
    let log = gateway.process.log();
    assert!(
        log.contains("event=\"broker_unavailable\"") && log.contains("event=\"resumed\""),
        "{log}"
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_work_and_takes_no_more() {
    let (mut stage, mut worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    stage.set("GATEWAY__TIMEOUT", "60s");
    let mut gateway = stage.start_gateway().await;
    let (mut line, mut idle) = (gateway.connect().await, gateway.connect().await);
    idle.write(&Call::post("{}").bytes()).await;
    assert_eq!(idle.reply().await.status, 400);
    line.write(&Call::revert(customer.account, usage, 5).bytes())
        .await;
    stage.peek(&stage.name("work")).await;
    gateway.process.signal("TERM");
    assert_eq!(idle.ended().await, "", "an idle connection is closed");
    eventually("nobody listens any more", async || {
        tokio::net::TcpStream::connect(gateway.address)
            .await
            .is_err()
    })
    .await;
    assert!(!gateway.process.has_ended());
    let _worker = stage.start_worker().await;
    assert_eq!(line.reply().await.status, 200);
    assert_eq!(line.ended().await, "");
    assert!(gateway.process.ended().await.success());
    let log = gateway.process.log();
    assert!(
        log.contains("stopped") && log.contains("reverted=1 rejected=1"),
        "{log}"
    );
    stage.strike().await;
}

#[tokio::test]
async fn what_only_a_person_can_mend_ends_the_start() {
    let mut stage = Stage::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    stage.set("GATEWAY__LISTEN", &address);
    let mut gateway = stage.spawn_gateway();
    assert_eq!(gateway.ended().await.code(), Some(1));
    let said = gateway.log();
    assert!(
        said.contains(&address) && said.contains("change gateway.listen"),
        "{said}"
    );
    stage.set("GATEWAY__LISTEN", "127.0.0.1:0");
    let mut other = url::Url::parse(&stage.servers.amqp).expect("a URL");
    other.set_password(Some("wrong")).expect("a login");
    stage.set("AMQP__URL", other.as_str());
    let mut gateway = stage.spawn_gateway();
    assert_eq!(gateway.ended().await.code(), Some(1));
    let said = gateway.log();
    assert!(
        said.contains("amqp.url") && !said.contains("wrong"),
        "{said}"
    );
    stage.strike().await;
}
