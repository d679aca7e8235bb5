//! Messages that come again: tried in small parts, counted only where a process crashed.

use crate::support::*;

/// Messages that are noted.
async fn suspects(stage: &Stage) -> i64 {
    stage.count("SELECT count(*) FROM revertd.suspects").await
}

#[tokio::test]
async fn returned_messages_are_answered_however_often() {
    let (stage, mut worker) = Stage::with_worker().await;
    assert!(worker.stop().await.success());
    let (mut events, customer) = (stage.events().await, stage.customer().await);
    let mut requests = Vec::new();
    for _ in 0..40 {
        let usage = stage.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 5));
    }
    for request in &requests {
        stage.publish(request).await;
    }
    for _ in 0..60 {
        stage.take_and_return(&stage.name("work")).await;
    }
    let mut worker = stage.start_worker().await;
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    eventually("they are forgotten", async || suspects(&stage).await == 0).await;
    assert!(worker.stop().await.success());
    stage.teardown().await;
}

#[tokio::test]
async fn fresh_messages_are_never_noted() {
    let (mut stage, mut worker) = Stage::with_worker().await;
    assert!(worker.stop().await.success());
    // No row can be added, so that what notes anything fails.
    let refuse = "ALTER TABLE revertd.suspects ADD COLUMN missing integer NOT NULL";
    stage.sql(refuse).await;
    stage.set("DATABASE__MIGRATE_ON_START", "false");
    let (mut events, customer) = (stage.events().await, stage.customer().await);
    let mut worker = stage.start_worker().await;
    let usage = stage.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    stage.publish(&request).await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    assert!(worker.stop().await.success());
    stage.teardown().await;
}

/// A message that comes again, is tried alone, may crash once, and is in work: its statement waits for a lock.
struct HeldUp {
    stage: Stage,
    worker: WorkerProcess,
    request: Request,
}

impl HeldUp {
    async fn new() -> Self {
        let mut stage = Stage::new().await;
        stage.set("WORKER__BATCH_MAX", "1");
        stage.set("WORKER__MAX_CRASHES", "1");
        stage.set("WORKER__SHUTDOWN_TIMEOUT", "1s");
        assert!(stage.start_worker().await.stop().await.success());
        let customer = stage.customer().await;
        let usage = stage.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20).id("held up");
        stage.publish(&request).await;
        let taken = stage.take(&stage.name("work")).await;
        // A start looks whether the ledger works, so that the lock comes after it.
        let worker = stage.start_worker().await;
        let lock = "BEGIN; LOCK TABLE billing_transactions IN SHARE MODE";
        stage.sql(lock).await;
        taken.close(200, "gone".into()).await.expect("closed");
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revertd' \
                       AND wait_event_type = 'Lock' AND datname = current_database()";
        eventually("its statement waits", async || {
            // Within a transaction, what was seen once is seen again.
            stage.sql("SELECT pg_stat_clear_snapshot()").await;
            stage.count(waiting).await > 0
        })
        .await;
        Self {
            stage,
            worker,
            request,
        }
    }

    /// What becomes of the message once the lock is gone.
    async fn verdict(mut self) -> String {
        self.stage.sql("COMMIT").await;
        if self.worker.has_ended() {
            self.worker = self.stage.start_worker().await;
        }
        let mut events = self.stage.events().await;
        let verdict = events.answer(&self.request).await.verdict();
        eventually("it is forgotten", async || suspects(&self.stage).await == 0).await;
        self.stage.teardown().await;
        verdict
    }
}

#[tokio::test]
async fn a_crash_counts_against_what_was_alone() {
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
    held_up.stage.sql(terminate).await;
    held_up.worker.logged("paused: the database").await;
    assert_eq!(held_up.verdict().await, "usage.reverted");
}
