//! Locks of other sessions: held locks, and locks that are waited for.

use std::time::{Duration, Instant};

use super::report::doctor;
use crate::support::*;

#[tokio::test]
async fn locks_that_block_workers_are_found() {
    let env = TestEnv::new().await;
    let url = with_database(&env.servers.database, &env.database);
    let (reader, changer) = (connect_db(&url).await, connect_db(&url).await);
    let read = "BEGIN; SELECT FROM billing_transactions LIMIT 1";
    reader.batch_execute(read).await.expect("read");
    let changing = tokio::spawn(async move {
        let change = "ALTER TABLE billing_transactions ADD COLUMN later text";
        let _ = changer.batch_execute(change).await;
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
                   AND relation = 'billing_transactions'::regclass";
    eventually("the change waits", async || env.count(waiting).await == 1).await;
    let began = Instant::now();
    let report = doctor(&env, &[]);
    let seen = "waits for AccessExclusiveLock on public.billing_transactions";
    report.says("database-locks", "warning", seen, "pg_terminate_backend");
    report.says("database-permissions", "error", "lock timeout", "locks");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    drop(reader);
    changing.await.expect("no panic");
    env.teardown().await;
}

#[tokio::test]
async fn many_old_transactions_hide_no_lock() {
    let env = TestEnv::new().await;
    let url = with_database(&env.servers.database, &env.database);
    let mut holders = Vec::new();
    for _ in 0..11 {
        let holder = connect_db(&url).await;
        let lock = "BEGIN; LOCK TABLE projects IN SHARE MODE";
        holder.batch_execute(lock).await.expect("locked");
        holders.push(holder);
    }
    let query = include_str!("../../../../src/ledger/doctor/sessions.sql");
    // Every transaction is old at once.
    let query = format!("PREPARE q (text, float8) AS {query}; EXECUTE q ('public', -1)");
    let messages = env.db.simple_query(&query).await.expect("asked");
    let kinds: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get("kind"),
            _ => None,
        })
        .collect();
    for kind in ["old", "lock"] {
        assert_eq!(
            kinds.iter().filter(|found| **found == kind).count(),
            10,
            "{kinds:?}"
        );
    }
    drop(holders);
    env.teardown().await;
}
