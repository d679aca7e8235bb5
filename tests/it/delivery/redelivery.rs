//! Redelivered messages: they are tried in small parts, and a delivery is counted only if a
//! process crashed.

use crate::support::*;

/// Messages that are noted.
async fn suspects(env: &TestEnv) -> i64 {
    env.count("SELECT count(*) FROM revertd.suspects").await
}

#[tokio::test]
async fn requeued_messages_are_answered_any_number_of_times() {
    let (env, mut worker) = TestEnv::with_worker().await;
    assert!(worker.stop().await.success());
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut requests = Vec::new();
    for _ in 0..40 {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 5));
    }
    for request in &requests {
        env.publish(request).await;
    }
    for _ in 0..60 {
        env.take_and_return(&env.name("work")).await;
    }
    let mut worker = env.start_worker().await;
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    eventually("they are forgotten", async || suspects(&env).await == 0).await;
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn first_deliveries_are_not_in_the_crash_journal() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    assert!(worker.stop().await.success());
    // No row can be added, so that every statement that records an attempt fails.
    let refuse = "ALTER TABLE revertd.suspects ADD COLUMN missing integer NOT NULL";
    env.sql(refuse).await;
    env.set("DATABASE__MIGRATE_ON_START", "false");
    let (mut events, customer) = (env.events().await, env.customer().await);
    let mut worker = env.start_worker().await;
    let usage = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    env.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    env.teardown().await;
}

/// A redelivered message that is tried alone, has one crash left, and is in flight: its statement
/// waits for a lock.
struct HeldUp {
    env: TestEnv,
    worker: WorkerProcess,
    request: Request,
}

impl HeldUp {
    async fn new() -> Self {
        let mut env = TestEnv::new().await;
        env.set("WORKER__BATCH_MAX", "1");
        env.set("WORKER__MAX_CRASHES", "1");
        env.set("WORKER__SHUTDOWN_TIMEOUT", "1s");
        assert!(env.start_worker().await.stop().await.success());
        let customer = env.customer().await;
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20).id("held up");
        env.publish(&request).await;
        let taken = env.take(&env.name("work")).await;
        // A start looks whether the ledger works, so that the lock comes after it.
        let worker = env.start_worker().await;
        let lock = "BEGIN; LOCK TABLE billing_transactions IN SHARE MODE";
        env.sql(lock).await;
        taken.close(200, "gone".into()).await.expect("closed");
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revertd' \
                       AND wait_event_type = 'Lock' AND datname = current_database()";
        eventually("its statement waits", async || {
            // Within a transaction, PostgreSQL repeats the statistics that it returned before.
            env.sql("SELECT pg_stat_clear_snapshot()").await;
            env.count(waiting).await > 0
        })
        .await;
        Self {
            env,
            worker,
            request,
        }
    }

    /// The outcome of the message once the lock is gone.
    async fn verdict(mut self) -> String {
        self.env.sql("COMMIT").await;
        if self.worker.has_ended() {
            self.worker = self.env.start_worker().await;
        }
        let mut events = self.env.events().await;
        let verdict = events.answer(&self.request).await.verdict();
        eventually("it is forgotten", async || suspects(&self.env).await == 0).await;
        self.env.teardown().await;
        verdict
    }
}

#[tokio::test]
async fn a_crash_counts_only_against_a_lone_message() {
    let mut held_up = HeldUp::new().await;
    held_up.worker.kill();
    assert_eq!(held_up.verdict().await, "RETRIES_EXHAUSTED");
}

#[tokio::test]
async fn a_stop_that_takes_too_long_is_no_crash() {
    let mut held_up = HeldUp::new().await;
    let stopped = held_up.worker.stop().await;
    assert!(
        !stopped.success(),
        "it is not done: {}",
        held_up.worker.log()
    );
    assert_eq!(held_up.verdict().await, "usage.reverted");
}

#[tokio::test]
async fn a_failure_of_the_database_is_no_crash() {
    let mut held_up = HeldUp::new().await;
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE application_name = 'revertd' AND wait_event_type = 'Lock' \
                     AND datname = current_database()";
    held_up.env.sql(terminate).await;
    held_up.worker.logged("paused: the database").await;
    assert_eq!(held_up.verdict().await, "usage.reverted");
}
