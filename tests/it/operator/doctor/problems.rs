//! A sound setup without errors, and one with every problem at once.

use lapin::types::{AMQPValue, FieldTable};

use super::super::startup::refused;
use super::report::doctor;
use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn a_sound_setup_has_no_errors() {
    let env = TestEnv::new().await;
    let before = doctor(&env, &[]);
    assert_eq!(before.status, 0, "{before:?}");
    before.says(
        "amqp-topology",
        "warning",
        "not there yet",
        "revertd worker",
    );
    env.start_worker().await.stop().await;
    let report = doctor(&env, &[]);
    assert_eq!(
        (report.status, report.count("errors")),
        (0, 0),
        "{report:?}"
    );
    for id in [
        "configuration",
        "database-version",
        "database-login",
        "database-fsync",
        "database-schema",
        "database-objects",
        "database-unlogged",
        "database-index",
        "database-frontier",
        "database-permissions",
        "database-connections",
        "database-clock",
        "authorization",
        "amqp-version",
        "amqp-login",
        "amqp-publishing",
        "amqp-topology",
        "amqp-permissions",
    ] {
        assert!(
            report.has(id, "ok") && !report.has(id, "error"),
            "{id}: {report:?}"
        );
    }
    report.says(
        "amqp-management",
        "skipped",
        "amqp.management_url",
        "rabbitmq-plugins enable",
    );
    // The default of RabbitMQ 3 is 128 MiB. No broker reports the configured value.
    let has_large_messages = report.has("amqp-message-size", "skipped");
    assert_ne!(has_large_messages, report.has("amqp-message-size", "ok"));
    if has_large_messages {
        report.says(
            "amqp-message-size",
            "skipped",
            "134217728",
            "set max_message_size",
        );
    }
    // It changed nothing: a second run finds the same.
    assert_eq!(doctor(&env, &[]).ids(), report.ids());
    let all = format!("all {} constraints", created(&env).await);
    report.says("database-objects", "ok", &all, "");
    env.teardown().await;
}

/// The number of objects that the migrations made, as the database counts them. The index of a
/// constraint is not counted.
async fn created(env: &TestEnv) -> i64 {
    let objects = include_str!("../../../../src/ledger/schema/objects.sql");
    let query = format!(
        "WITH o AS ({objects}) SELECT count(*) FROM o WHERE table_name <> 'schema_history' AND \
            fault IS NULL AND \
         NOT (kind = 'index' AND name IN (SELECT name FROM o WHERE kind = 'constraint'))"
    );
    env.count(&query).await
}

/// Much that can be wrong with a database.
const TROUBLES: &str = "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;

             ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
             ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_once CHECK (true) NOT VALID;
             ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
             DROP INDEX revertd.outcomes_revert_no;
             DROP FUNCTION revertd.give_way();
             UPDATE pg_index SET indisvalid = false WHERE indexrelid = \
             'revertd.grants_org'::regclass;
             DROP INDEX billing_transactions_revertd_idx;
             UPDATE revertd.schema_history SET checksum = '1' WHERE version = 1;
             ALTER TABLE projects DROP COLUMN deleted_at;
             ALTER TABLE billing_transactions ADD FOREIGN KEY (account_id) REFERENCES \
             billing_customers;
             CREATE TABLE IF NOT EXISTS revertd.control
                 (id bigint GENERATED ALWAYS AS IDENTITY, paused boolean, why text, changed_by \
                 text);
             INSERT INTO revertd.control (paused, why, changed_by) VALUES (true, 'a flood', \
             'somebody')";

/// The findings then.
const FOUND: [(&str, &str, &str, &str); 13] = [
    (
        "database-objects",
        "error",
        "outcomes_amount_positive of revertd.outcomes is missing",
        "migrations/",
    ),
    (
        "database-objects",
        "error",
        "outcomes_once of revertd.outcomes exists, but without effect",
        "VALIDATE CONSTRAINT",
    ),
    (
        "database-objects",
        "error",
        "outcomes_chain of revertd.outcomes exists, but without effect",
        "ENABLE TRIGGER",
    ),
    (
        "database-objects",
        "error",
        "index outcomes_revert_no of revertd.outcomes is missing",
        "migrations/",
    ),
    (
        "database-objects",
        "error",
        "revertd.give_way is missing",
        "migrations/",
    ),
    (
        "database-objects",
        "error",
        "grants_org of revertd.grants exists, but without effect",
        "REINDEX INDEX",
    ),
    (
        "database-index",
        "error",
        "missing or invalid",
        "revertd migrate",
    ),
    (
        "database-schema",
        "error",
        "differ from those of this program: V1__outcomes",
        "never edited",
    ),
    (
        "database-frontier",
        "error",
        "projects.deleted_at is missing",
        "correct ledger.schema",
    ),
    (
        "platform-account",
        "error",
        "no revert can be written",
        "ledger.platform_account",
    ),
    ("fleet-paused", "warning", "Z: a flood", "revertd resume"),
    (
        "authorization",
        "warning",
        "no client has a grant",
        "revertd grants add",
    ),
    (
        "database-locks",
        "warning",
        "holds ShareLock on public.billing_customers",
        "pg_terminate_backend",
    ),
];

#[tokio::test]
async fn every_problem_is_found_in_one_run() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.sql(TROUBLES).await;
    let blocker = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let lock = "BEGIN; LOCK TABLE billing_customers IN SHARE MODE";
    blocker.batch_execute(lock).await.expect("locked");
    let work = env.name("work");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    declare(&env, &work, arguments).await;

    let report = doctor(&env, &[]);
    assert_eq!(report.status, 1, "{report:?}");
    for (id, status, seen, remedy) in FOUND {
        report.says(id, status, seen, remedy);
    }
    report.says(
        "amqp-topology",
        "error",
        &work,
        "exists with other arguments",
    );
    // None of it keeps the rest from being looked at.
    for id in [
        "database-connections",
        "database-clock",
        "amqp-login",
        "amqp-permissions",
    ] {
        assert!(report.has(id, "ok"), "{id}: {report:?}");
    }
    drop(blocker);
    env.teardown().await;
}

#[tokio::test]
async fn a_worker_does_not_start_without_its_constraints() {
    for (plant, said) in [
        (
            "ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain",
            "ENABLE TRIGGER outcomes_chain",
        ),
        (
            "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_within_usage",
            "outcomes_within_usage",
        ),
        (
            "DROP INDEX revertd.outcomes_revert_no",
            "outcomes_revert_no",
        ),
    ] {
        let env = TestEnv::new().await;
        env.sql(plant).await;
        let log = refused(&env).await;
        assert!(
            log.contains("does not protect the ledger") && log.contains(said),
            "{log}"
        );
        env.teardown().await;
    }
}
