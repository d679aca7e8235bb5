//! Requests and queues that fail.

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::report::{Finding, report_beside};
use crate::support::unrelated::UnrelatedRequests;
use crate::support::{Request, TestEnv, WorkerProcess, connect_db, with_database};

/// Makes each insert of an entry fail whose usage is marked, with the state that it is marked with.
pub async fn mark(env: &TestEnv, usages: &[(Uuid, &str)]) {
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
pub async fn requests(env: &TestEnv, count: usize) -> Vec<(Uuid, Uuid, Request)> {
    let account = env.customer().await.account;
    let mut all = Vec::new();
    for _ in 0..count {
        let usage = env.usage(account, 20).await;
        all.push((account, usage, Request::revert(account, usage, 5)));
    }
    all
}

/// A transaction of others that holds the entries of those usages.
pub async fn hold(env: &TestEnv, usages: &[(Uuid, Uuid, Request)]) -> Client {
    let other = connect_db(&with_database(&env.servers.database, &env.database)).await;
    other.batch_execute("BEGIN").await.expect("begun");
    for (account, usage, _) in usages {
        other
            .batch_execute(&format!(
                "INSERT INTO billing_transactions \
                     (id, account_id, type, source, amount, description, metadata, user_id) \
                 SELECT revertd.entry_id('{usage}', 0, '{account}'), '{account}', 'credit', \
                 'test', 1, '', '{{}}', ''"
            ))
            .await
            .expect("inserted");
    }
    other
}

/// Arguments of a queue that accepts one message and refuses the others.
pub fn refusing() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    arguments
}

/// A subscriber's queue, bound to the reply exchange.
pub async fn subscribed(env: &TestEnv, key: &str, arguments: FieldTable) -> String {
    let is_quorum = arguments.contains_key("x-queue-type");
    let options = QueueDeclareOptions {
        exclusive: !is_quorum,
        durable: is_quorum,
        ..Default::default()
    };
    let name = env.name("subscriber");
    let declared = env
        .channel
        .queue_declare(name.as_str().into(), options, arguments);
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

/// Fills a rung until it refuses more.
pub async fn fill(env: &TestEnv, rung: &str) {
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

/// Requests of an org whose subscriber's queue does not take events, beside unrelated requests:
/// their events are in revertd's own queue in the end, and no attempt is counted.
pub async fn beside_untaken_events(
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
