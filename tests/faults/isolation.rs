//! A request, row, lock or queue that fails, beside unrelated requests that have nothing to do with
//! it: these are answered as if it were not there.

use lapin::options::{
    BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::instance::Instance;
use crate::support::report::{Finding, report_beside, sized};
use crate::support::unrelated::UnrelatedRequests;
use crate::support::{Request, TestEnv, WorkerProcess, connect_db, eventually, with_database};

/// Makes each insert of an entry fail whose usage is marked, with the state that it is marked with.
async fn mark(env: &TestEnv, usages: &[(Uuid, &str)]) {
    env.sql(
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
        env.sql(&format!("INSERT INTO public.marked VALUES {values}"))
            .await;
    }
}

/// Requests on usages of one account that is not the unrelated requests'.
async fn requests(env: &TestEnv, count: usize) -> Vec<(Uuid, Uuid, Request)> {
    let account = env.customer().await.account;
    let mut all = Vec::new();
    for _ in 0..count {
        let usage = env.usage(account, 20).await;
        all.push((account, usage, Request::revert(account, usage, 5)));
    }
    all
}

/// A transaction of others that holds the entries of those usages.
async fn hold(env: &TestEnv, usages: &[(Uuid, Uuid, Request)]) -> Client {
    let other = connect_db(&with_database(&env.servers.database, &env.database)).await;
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
async fn subscribed(env: &TestEnv, key: &str, arguments: FieldTable) -> String {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let declared = env.channel.queue_declare("".into(), options, arguments);
    let queue = declared.await.expect("declared").name().to_string();
    let bound = env.channel.queue_bind(
        queue.as_str().into(),
        env.name("replies").as_str().into(),
        key.into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    bound.await.expect("bound");
    queue
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_failed_by_one_request_delays_no_other() {
    let env = TestEnv::new().await;
    // A class that nobody knows, a policy's, a cancelled statement, a missing column, a value out
    // of range.
    let states = ["AB123", "42501", "57014", "42703", "22003"];
    let bad = requests(&env, states.len()).await;
    let marked = bad.iter().zip(states);
    let marked: Vec<_> = marked.map(|(bad, state)| (bad.1, state)).collect();
    mark(&env, &marked).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    for (_, _, request) in &bad {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let mut dead = env.dead_letters().await;
    for (_, usage, request) in &bad {
        let letter = dead.answer(request).await;
        if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
            count.found(Finding::Differing, format!("the dead letter of {usage}"));
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
    env.teardown().await;
}

/// One lock, or many: as many as a batch has requests.
async fn beside_locks(fault: &str, locks: usize) {
    let env = TestEnv::new().await;
    let bad = requests(&env, locks).await;
    let other = hold(&env, &bad).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    for (_, _, request) in &bad {
        env.publish(request).await;
    }
    let (count, waits) = unrelated.send_during_fault(&env).await;
    other.batch_execute("ROLLBACK").await.expect("rolled back");
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    assert!(worker.stop().await.success());
    report_beside(fault, 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_one_usage_delays_no_other() {
    beside_locks("beside: a lock on one usage", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_timeouts_of_many_usages_do_not_add_up() {
    beside_locks("beside: locks on 50 usages", 50).await;
}

/// A request that the server says to have no room for: the server's fault only where it has none
/// for others either.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_reported_disk_full_delays_no_other() {
    let env = TestEnv::new().await;
    let bad = requests(&env, 1).await;
    mark(&env, &[(bad[0].1, "53100")]).await;
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    env.publish(&bad[0].2).await;
    let (count, waits) = unrelated.send_during_fault(&env).await;
    assert!(worker.stop().await.success());
    report_beside("beside: a request without room", 1, count, &waits);
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_row_delays_no_other_request() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let bad = requests(&env, 1).await;
    let (_, usage, request) = &bad[0];
    let mut events = env.subscribe().await;
    env.publish(request).await;
    assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    env.sql(&format!(
        "UPDATE revertd.outcomes SET decided_at = 'infinity' WHERE usage_id = '{usage}'"
    ))
    .await;
    let unrelated = UnrelatedRequests::new(&env).await;
    env.publish(request).await;
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let letter = env.dead_letters().await.answer(request).await;
    if letter.text_header("x-error-reason").as_deref() != Some("RETRIES_EXHAUSTED") {
        count.found(Finding::Differing, format!("the dead letter of {usage}"));
    }
    assert!(worker.stop().await.success());
    report_beside("beside: a row that can't be read", 1, count, &waits);
    env.teardown().await;
}

/// Requests of an org whose subscriber's queue does not take events, beside unrelated requests: their
/// events are in revertd's own queue in the end, and no attempt is counted.
async fn beside_untaken_events(
    fault: &str,
    env: TestEnv,
    mut worker: WorkerProcess,
    account: Uuid,
    requests: usize,
) {
    let mut untaken = Vec::new();
    for _ in 0..requests {
        let usage = env.usage(account, 20).await;
        untaken.push(Request::revert(account, usage, 5));
    }
    let unrelated = UnrelatedRequests::new(&env).await;
    for request in &untaken {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    env.drained().await;
    let mut events = env.events().await;
    for request in &untaken {
        if events.answer(request).await.verdict() != "usage.reverted" {
            count.found(Finding::Differing, request.correlation());
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
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_rejects_publishes_delays_no_other_org() {
    let (env, worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    subscribed(&env, &key, refusing()).await;
    let fault = "beside: a subscriber's queue that refuses";
    beside_untaken_events(fault, env, worker, customer.account, 20).await;
}

/// Stops the process of a queue where it is: what it is sent is neither confirmed nor refused, as by
/// a quorum queue without a majority.
const SUSPEND: &str = "{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>)), \
    sys:suspend(amqqueue:get_pid(Queue)).";

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_never_confirms_delays_no_other_org() {
    let (instance, servers) = Instance::start();
    let env = TestEnv::on(servers).await;
    let worker = env.start_worker().await;
    let customer = env.customer().await;
    let key = format!("result.{}", customer.org);
    let queue = subscribed(&env, &key, FieldTable::default()).await;
    let suspend = SUSPEND.replace("QUEUE", &queue);
    let said = instance.control(&["eval", &suspend]).await;
    assert_eq!(said.trim(), "ok");
    let fault = "beside: a subscriber's queue that never answers";
    beside_untaken_events(fault, env, worker, customer.account, sized(600, 3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_dead_letter_queue_delays_no_request() {
    let mut env = TestEnv::new().await;
    env.set("TOPOLOGY__DEAD_LETTER_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let rubbish: Vec<_> = (0..40).map(|_| Request::raw("x".repeat(500))).collect();
    for request in &rubbish {
        env.publish(request).await;
    }
    let (mut count, waits) = unrelated.send_during_fault(&env).await;
    let mut events = env.events().await;
    for request in &rubbish {
        if events.answer(request).await.verdict() != "MALFORMED_REQUEST" {
            count.found(Finding::Differing, request.correlation());
        }
    }
    env.drained().await;
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(!log.contains("paused"), "{log}");
    report_beside("beside: a dead-letter queue that is full", 1, count, &waits);
    env.teardown().await;
}

/// Fills a rung until it refuses more.
async fn fill(env: &TestEnv, rung: &str) {
    loop {
        let publishing = env.channel.basic_publish(
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
async fn all_rungs_full_pauses_the_pool_uncounted() {
    let mut env = TestEnv::new().await;
    env.set("RETRY__DELAYS", "1h");
    env.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    let rung = env.name("retry.1h");
    fill(&env, &rung).await;
    let account = env.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    env.publish(&waiting).await;
    worker.logged("paused: publishing").await;
    let emptied = env
        .channel
        .queue_purge(rung.as_str().into(), QueuePurgeOptions::default());
    emptied.await.expect("emptied");
    eventually("it waits on the rung", async || env.depth(&rung).await == 1).await;
    assert_eq!(env.peek(&rung).await.body, waiting.body);
    assert!(worker.stop().await.success());
    let log = worker.log();
    assert!(log.contains("dead_lettered=0 redelivered=0"), "{log}");
    env.teardown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_rung_delays_no_request() {
    let mut env = TestEnv::new().await;
    env.set("RETRY__DELAYS", "1h,2h");
    env.set("TOPOLOGY__RETRY_QUEUE_MAX_BYTES", "1KiB");
    let mut worker = env.start_worker().await;
    fill(&env, &env.name("retry.1h")).await;
    let unrelated = UnrelatedRequests::new(&env).await;
    let account = env.customer().await.account;
    let waiting = Request::revert(account, Uuid::new_v4(), 5);
    env.publish(&waiting).await;
    let (count, waits) = unrelated.send_during_fault(&env).await;
    let next = env.name("retry.2h");
    eventually("it waits on the next rung", async || {
        env.depth(&next).await == 1
    })
    .await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("paused"), "{}", worker.log());
    report_beside("beside: a rung that is full", 1, count, &waits);
    env.teardown().await;
}
