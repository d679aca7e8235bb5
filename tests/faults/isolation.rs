//! A request, row, lock or queue that fails, beside honest requests that have nothing to do with
//! it: these are answered as if it were not there.

use lapin::options::{
    BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::instance::Instance;
use crate::support::honest::Honest;
use crate::support::report::{Wrong, report_beside, sized};
use crate::support::{Request, Stage, WorkerProcess, connect_db, eventually, with_database};

/// Makes each insert of an entry fail whose usage is marked, with the state that it is marked with.
async fn mark(stage: &Stage, usages: &[(Uuid, &str)]) {
    stage
        .sql(
            "CREATE TABLE public.marked (usage text PRIMARY KEY, state text NOT NULL);
             CREATE FUNCTION public.refuse_marked() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE marked text;
             BEGIN
                 SELECT m.state INTO marked FROM public.marked m
                 WHERE m.usage = NEW.metadata ->> 'revert_request_using';
                 IF FOUND THEN RAISE EXCEPTION 'marked' USING ERRCODE = marked; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse_marked BEFORE INSERT ON billing_transactions
             FOR EACH ROW EXECUTE FUNCTION public.refuse_marked();",
        )
        .await;
    for (usage, state) in usages {
        let values = format!("('{usage}', '{state}')");
        stage
            .sql(&format!("INSERT INTO public.marked VALUES {values}"))
            .await;
    }
}

/// Requests on usages of one account that is not the honest ones'.
async fn requests(stage: &Stage, count: usize) -> Vec<(Uuid, Uuid, Request)> {
    let account = stage.customer().await.account;
    let mut all = Vec::new();
    for _ in 0..count {
        let usage = stage.usage(account, 20).await;
        all.push((account, usage, Request::revert(account, usage, 5)));
    }
    all
}

/// A transaction of others that holds the entries of those usages.
async fn hold(stage: &Stage, usages: &[(Uuid, Uuid, Request)]) -> Client {
    let other = connect_db(&with_database(&stage.servers.database, &stage.database)).await;
    other.batch_execute("BEGIN").await.expect("begun");
    for (account, usage, _) in usages {
        other
            .batch_execute(&format!(
                "INSERT INTO billing_transactions \
                     (id, account_id, type, source, amount, description, metadata, user_id) \
                 SELECT revertd.entry_id('{usage}', 0, '{account}'), '{account}', 'credit', 'test', 1, '', '{{}}', ''"
            ))
            .await
            .expect("inserted");
    }
    other
}

/// Arguments of a queue that refuses what it is sent, but for one message.
fn refusing() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    arguments
}

/// A subscriber's queue, bound to the reply exchange.
async fn subscribed(stage: &Stage, key: &str, arguments: FieldTable) -> String {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let declared = stage.channel.queue_declare("".into(), options, arguments);
    let queue = declared.await.expect("declared").name().to_string();
    let bound = stage.channel.queue_bind(
        queue.as_str().into(),
        stage.name("replies").as_str().into(),
        key.into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    bound.await.expect("bound");
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_one_request_fails_delays_no_other() {
    let stage = Stage::new().await;
    // A class that nobody knows, a policy's, a cancelled statement, a missing column, a value out
    // of range.
    let states = ["AB123", "42501", "57014", "42703", "22003"];
    let bad = requests(&stage, states.len()).await;
    let marked = bad.iter().zip(states);
    let marked: Vec<_> = marked.map(|(bad, state)| (bad.1, state)).collect();
    mark(&stage, &marked).await;
    let mut worker = stage.start_worker().await;
    let honest = Honest::new(&stage).await;
    for (_, _, request) in &bad {
        stage.publish(request).await;
    }
    let (mut count, waits) = honest.ask(&stage).await;
    let mut dead = stage.dead_letters().await;
    for (_, usage, request) in &bad {
        let letter = dead.answer(request).await;
        if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
            count.found(Wrong::Differing, format!("the dead letter of {usage}"));
        }
    }
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    assert!(worker.stop().await.success());
    report_beside(
        "beside: a statement that one request fails",
        1,
        count,
        &waits,
    );
    stage.teardown().await;
}

/// One lock, or many: as many as a batch has requests.
async fn beside_locks(fault: &str, locks: usize) {
    let stage = Stage::new().await;
    let bad = requests(&stage, locks).await;
    let other = hold(&stage, &bad).await;
    let mut worker = stage.start_worker().await;
    let honest = Honest::new(&stage).await;
    for (_, _, request) in &bad {
        stage.publish(request).await;
    }
    let (count, waits) = honest.ask(&stage).await;
    other.batch_execute("ROLLBACK").await.expect("rolled back");
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    assert!(worker.stop().await.success());
    report_beside(fault, 1, count, &waits);
    stage.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_one_usage_delays_no_other() {
    beside_locks("beside: a lock on one usage", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_on_many_usages_do_not_add_up() {
    beside_locks("beside: locks on 50 usages", 50).await;
}

/// A request that the server says to have no room for: the server's fault only where it has none
/// for others either.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_room_delays_no_other_and_is_not_counted_at_once() {
    let stage = Stage::new().await;
    let bad = requests(&stage, 1).await;
    mark(&stage, &[(bad[0].1, "53100")]).await;
    let mut worker = stage.start_worker().await;
    let honest = Honest::new(&stage).await;
    stage.publish(&bad[0].2).await;
    let (count, waits) = honest.ask(&stage).await;
    assert!(worker.stop().await.success());
    report_beside("beside: a request without room", 1, count, &waits);
    stage.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_row_that_can_not_be_read_delays_no_other() {
    let (stage, mut worker) = Stage::with_worker().await;
    let bad = requests(&stage, 1).await;
    let (_, usage, request) = &bad[0];
    let mut events = stage.listen().await;
    stage.publish(request).await;
    assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    stage
        .sql(&format!(
            "UPDATE revertd.outcomes SET decided_at = 'infinity' WHERE usage_id = '{usage}'"
        ))
        .await;
    let honest = Honest::new(&stage).await;
    stage.publish(request).await;
    let (mut count, waits) = honest.ask(&stage).await;
    let letter = stage.dead_letters().await.answer(request).await;
    if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
        count.found(Wrong::Differing, format!("the dead letter of {usage}"));
    }
    assert!(worker.stop().await.success());
    report_beside("beside: a row that can't be read", 1, count, &waits);
    stage.teardown().await;
}

/// Requests of an org whose subscriber's queue does not take events, beside honest ones: their
/// events are in revertd's own queue in the end, and no attempt is counted.
async fn beside_untaken_events(
    fault: &str,
    stage: Stage,
    mut worker: WorkerProcess,
    account: Uuid,
    requests: usize,
) {
    let mut untaken = Vec::new();
    for _ in 0..requests {
        let usage = stage.usage(account, 20).await;
        untaken.push(Request::revert(account, usage, 5));
    }
    let honest = Honest::new(&stage).await;
    for request in &untaken {
        stage.publish(request).await;
    }
    let (mut count, waits) = honest.ask(&stage).await;
    stage.drained().await;
    let mut events = stage.events().await;
    for request in &untaken {
        if events.answer(request).await.verdict() != "usage.reverted" {
            count.found(Wrong::Differing, request.correlation());
        }
    }
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    assert!(
        log.contains("retried=0 dead_lettered=0"),
        "no attempt is counted: {log}"
    );
    report_beside(fault, 1, count, &waits);
    stage.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_whose_queue_refuses_delays_no_other_org() {
    let (stage, worker) = Stage::with_worker().await;
    let customer = stage.customer().await;
    let key = format!("result.{}", customer.org);
    subscribed(&stage, &key, refusing()).await;
    let fault = "beside: a subscriber's queue that refuses";
    beside_untaken_events(fault, stage, worker, customer.account, 20).await;
}

/// Stops the process of a queue where it is: what it is sent is neither confirmed nor refused, as by
/// a quorum queue without a majority.
const SUSPEND: &str = "{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>)), \
    sys:suspend(amqqueue:get_pid(Queue)).";

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_whose_queue_never_answers_delays_no_other_org() {
    let (instance, servers) = Instance::start();
    let stage = Stage::on(servers).await;
    let worker = stage.start_worker().await;
    let customer = stage.customer().await;
    let key = format!("result.{}", customer.org);
    let queue = subscribed(&stage, &key, FieldTable::default()).await;
    let suspend = SUSPEND.replace("QUEUE", &queue);
    let said = instance.control(&["eval", &suspend]).await;
    assert_eq!(said.trim(), "ok");
    let fault = "beside: a subscriber's queue that never answers";
    beside_untaken_events(fault, stage, worker, customer.account, sized(600, 3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_that_is_full_delays_no_request() {
    let mut stage = Stage::new().await;
    stage.set("TOPOLOGY__DEAD_LETTER_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = stage.start_worker().await;
    let honest = Honest::new(&stage).await;
    let rubbish: Vec<_> = (0..40).map(|_| Request::raw("x".repeat(500))).collect();
    for request in &rubbish {
        stage.publish(request).await;
    }
    let (mut count, waits) = honest.ask(&stage).await;
    let mut events = stage.events().await;
    for request in &rubbish {
        if events.answer(request).await.verdict() != "MALFORMED_REQUEST" {
            count.found(Wrong::Differing, request.correlation());
        }
    }
    stage.drained().await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    report_beside("beside: a dead-letter queue that is full", 1, count, &waits);
    stage.teardown().await;
}

/// Fills a rung until it refuses more.
async fn fill(stage: &Stage, rung: &str) {
    loop {
        let publishing = stage.channel.basic_publish(
            "".into(),
            rung.into(),
            BasicPublishOptions::default(),
            &[b'x'; 600],
            BasicProperties::default(),
        );
        let confirm = publishing.await.expect("written").await.expect("told");
        if confirm == Confirmation::Nack(None) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rungs_that_are_all_full_pause_the_pool_and_nothing_is_counted() {
    let mut stage = Stage::new().await;
    stage.set("RETRY__DELAYS", "1h");
    stage.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = stage.start_worker().await;
    let rung = stage.name("retry.1h");
    fill(&stage, &rung).await;
    let account = stage.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    stage.publish(&waiting).await;
    worker.logged("paused: publishing").await;
    let emptied = stage
        .channel
        .queue_purge(rung.as_str().into(), QueuePurgeOptions::default());
    emptied.await.expect("emptied");
    eventually("it waits on the rung", async || {
        stage.depth(&rung).await == 1
    })
    .await;
    assert_eq!(stage.peek(&rung).await.body, waiting.body);
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(log.contains("dead_lettered=0 redelivered=0"), "{log}");
    stage.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rung_that_is_full_delays_no_request() {
    let mut stage = Stage::new().await;
    stage.set("RETRY__DELAYS", "1h,2h");
    stage.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = stage.start_worker().await;
    fill(&stage, &stage.name("retry.1h")).await;
    let honest = Honest::new(&stage).await;
    let account = stage.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    stage.publish(&waiting).await;
    let (count, waits) = honest.ask(&stage).await;
    let next = stage.name("retry.2h");
    eventually("it waits on the next rung", async || {
        stage.depth(&next).await == 1
    })
    .await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    report_beside("beside: a rung that is full", 1, count, &waits);
    stage.teardown().await;
}
