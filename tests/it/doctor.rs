//! `revertd doctor`: what is wrong on purpose is found, with what to do about it, and hides nothing else.

use std::process::Command;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::permissions::{Role, documented, drop_role};
use super::starts::refused;
use super::support::*;

mod definitions;
mod managed;
mod remedies;
pub mod report;
mod sessions;

use report::doctor;

#[tokio::test]
async fn a_sound_stage_has_no_error_and_what_can_not_be_seen_says_why() {
    let stage = Stage::new().await;
    let before = doctor(&stage, &[]);
    assert_eq!(before.status, 0, "{before:?}");
    before.says(
        "amqp-topology",
        "warning",
        "not there yet",
        "revertd worker",
    );
    stage.start_worker().await.stop().await;
    let report = doctor(&stage, &[]);
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
    // The default of RabbitMQ 3 is 128 MiB; what is configured no broker tells.
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
    // It changed nothing: whoever looks again finds the same.
    assert_eq!(doctor(&stage, &[]).ids(), report.ids());
    let all = format!("all {} constraints", created(&stage).await);
    report.says("database-objects", "ok", &all, "");
    stage.strike().await;
}

/// How many objects the migrations made, by the database's own word. The index of a constraint goes with it.
async fn created(stage: &Stage) -> i64 {
    let objects = include_str!("../../src/ledger/schema/objects.sql");
    let query = format!(
        "WITH o AS ({objects}) SELECT count(*) FROM o WHERE table_name <> 'schema_history' AND fault IS NULL AND \
         NOT (kind = 'index' AND name IN (SELECT name FROM o WHERE kind = 'constraint'))"
    );
    stage.count(&query).await
}

/// Much that can be wrong with a database.
const TROUBLES: &str = "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;
             ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
             ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_once CHECK (true) NOT VALID;
             ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
             DROP INDEX revertd.outcomes_revert_no;
             DROP FUNCTION revertd.give_way();
             UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'revertd.grants_org'::regclass;
             DROP INDEX billing_transactions_revertd_idx;
             UPDATE revertd.schema_history SET checksum = '1' WHERE version = 1;
             ALTER TABLE projects DROP COLUMN deleted_at;
             ALTER TABLE billing_transactions ADD FOREIGN KEY (account_id) REFERENCES billing_customers;
             CREATE TABLE IF NOT EXISTS revertd.control
                 (id bigint GENERATED ALWAYS AS IDENTITY, paused boolean, why text, changed_by text);
             INSERT INTO revertd.control (paused, why, changed_by) VALUES (true, 'a flood', 'somebody')";

/// What is found then.
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
        "outcomes_once of revertd.outcomes is there, without",
        "VALIDATE CONSTRAINT",
    ),
    (
        "database-objects",
        "error",
        "outcomes_chain of revertd.outcomes is there, without",
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
        "grants_org of revertd.grants is there, without",
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
        "ARCHITECTURE.md",
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
        "nobody has one",
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
async fn every_trouble_that_is_there_is_found_at_once() {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    stage.sql(TROUBLES).await;
    let blocker = connect_db(&with_database(&stage.servers.database, &stage.database)).await;
    let lock = "BEGIN; LOCK TABLE billing_customers IN SHARE MODE";
    blocker.batch_execute(lock).await.expect("locked");
    let work = stage.name("work");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    declare(&stage, &work, arguments).await;

    let report = doctor(&stage, &[]);
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
    stage.strike().await;
}

async fn declare(stage: &Stage, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = stage
        .channel
        .queue_declare(queue.into(), options, arguments);
    declared.await.expect("declared");
}

#[tokio::test]
async fn the_worker_does_not_start_where_the_database_lets_wrong_rows_in() {
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
        let stage = Stage::new().await;
        stage.sql(plant).await;
        let log = refused(&stage).await;
        assert!(
            log.contains("not fit for money") && log.contains(said),
            "{log}"
        );
        stage.strike().await;
    }
}

#[tokio::test]
async fn only_what_is_missing_of_a_grant_is_told() {
    let stage = Stage::new().await;
    let role = Role::new(&stage, "worker", &stage.database).await;
    for statement in documented("worker") {
        stage
            .sql(&role.own(&statement, "worker", &stage.database))
            .await;
    }
    let name = &role.name;
    stage
        .sql(&format!(
            "REVOKE INSERT ON revertd.outcomes FROM {name}; REVOKE DELETE ON revertd.suspects FROM {name}; \
             REVOKE SELECT (name) ON organizations FROM {name}"
        ))
        .await;
    let report = doctor(&stage, &[("DATABASE__URL", &role.url)]);
    assert_eq!(report.count("errors"), 3, "{report:?}");
    for (what, table) in [
        ("INSERT", "revertd.outcomes"),
        ("DELETE", "revertd.suspects"),
        ("SELECT (name)", "public.organizations"),
    ] {
        let seen = format!("{name} lacks {what} on {table}");
        let remedy = format!("GRANT {what} ON {table} TO {name};");
        report.says("database-permissions", "error", &seen, &remedy);
    }
    drop_role(&stage, &role).await;
    stage.strike().await;
}

#[tokio::test]
async fn each_missing_grant_is_told_as_the_statement_that_gives_it() {
    let stage = Stage::new().await;
    let all = documented("worker");
    assert!(all.len() > 5, "{all:?}");
    for missing in &all {
        let role = Role::new(&stage, "worker", &stage.database).await;
        for statement in all.iter().filter(|statement| *statement != missing) {
            stage
                .sql(&role.own(statement, "worker", &stage.database))
                .await;
        }
        let report = doctor(&stage, &[("DATABASE__URL", &role.url)]);
        assert_eq!(report.status, 1, "without {missing}: {report:?}");
        let statement = role.own(missing, "worker", &stage.database);
        // Everybody may use the schema public.
        let statement = statement.replace("SCHEMA public, revertd", "SCHEMA revertd");
        report.says("database-permissions", "error", &role.name, &statement);
        drop_role(&stage, &role).await;
    }
    let role = Role::new(&stage, "worker", &stage.database).await;
    for statement in &all {
        stage
            .sql(&role.own(statement, "worker", &stage.database))
            .await;
    }
    let report = doctor(&stage, &[("DATABASE__URL", &role.url)]);
    assert_eq!(report.count("errors"), 0, "{report:?}");
    report.says(
        "database-transactions",
        "skipped",
        "no transactions but its own",
        "GRANT pg_read_all_stats",
    );
    let name = &role.name;
    stage
        .sql(&format!(
            "ALTER ROLE {name} CONNECTION LIMIT 3; ALTER ROLE {name} SET default_transaction_read_only = on;
             ALTER ROLE {name} SET synchronous_commit = off"
        ))
        .await;
    let report = doctor(&stage, &[("DATABASE__URL", &role.url)]);
    report.says(
        "database-connections",
        "error",
        "limit of 3",
        "CONNECTION LIMIT 10",
    );
    report.says(
        "database-writable",
        "error",
        "read-only",
        "default_transaction_read_only",
    );
    report.says("database-synchronous-commit", "ok", "off by default", "");
    drop_role(&stage, &role).await;
    stage.strike().await;
}

#[tokio::test]
async fn what_fails_first_is_told_and_what_depends_on_it_is_not_tried() {
    let stage = Stage::new().await;
    logs::secret("sesame");
    let vacant = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = vacant.local_addr().expect("bound").port();
    drop(vacant);
    let with = |url: &str, change: &dyn Fn(&mut url::Url)| {
        let mut url = url::Url::parse(url).expect("a URL");
        change(&mut url);
        url.to_string()
    };
    let stranger = |url: &mut url::Url| {
        url.set_username("nobody").expect("a user");
        url.set_password(Some("sesame")).expect("a password");
    };
    let nowhere = |url: &mut url::Url| url.set_host(Some("nowhere.invalid")).expect("a host");
    let closed = |url: &mut url::Url| url.set_port(Some(port)).expect("a port");
    let encrypted = |url: &mut url::Url| url.set_query(Some("sslmode=verify-full"));
    let (database, amqp) = (stage.setting("DATABASE__URL"), &stage.servers.amqp);
    let database = database.expect("set by every stage");
    let amqps = amqp.replacen("amqp://", "amqps://", 1);
    for (key, url, id, seen) in [
        (
            "DATABASE__URL",
            with(database, &nowhere),
            "database-dns",
            "nowhere.invalid has no address",
        ),
        (
            "DATABASE__URL",
            with(database, &closed),
            "database-tcp",
            "refused",
        ),
        (
            "DATABASE__URL",
            with(database, &encrypted),
            "database-tls",
            "",
        ),
        (
            "DATABASE__URL",
            with(database, &stranger),
            "database-login",
            "refuses the login",
        ),
        (
            "AMQP__URL",
            with(amqp, &nowhere),
            "amqp-dns",
            "nowhere.invalid has no address",
        ),
        ("AMQP__URL", with(amqp, &closed), "amqp-tcp", "refused"),
        ("AMQP__URL", amqps, "amqp-tls", ""),
        (
            "AMQP__URL",
            with(amqp, &stranger),
            "amqp-login",
            "refuses the login",
        ),
        (
            "AMQP__URL",
            with(amqp, &|url| url.set_path("nowhere")),
            "amqp-login",
            "refuses the virtual host",
        ),
    ] {
        let report = doctor(&stage, &[(key, &url)]);
        assert_eq!(report.status, 1, "{report:?}");
        report.says(id, "error", seen, " ");
        assert_eq!(report.count("errors"), 1, "{id}: {report:?}");
        assert!(
            !id.ends_with("-dns") || report.has(&id.replace("-dns", "-tcp"), "skipped"),
            "{report:?}"
        );
        let (this, other) = match key {
            "AMQP__URL" => ("amqp-topology", "database-permissions"),
            _ => ("database-state", "amqp-login"),
        };
        assert!(report.has(this, "skipped"), "{id}: {report:?}");
        assert!(report.has(other, "ok"), "{id}: {report:?}");
        assert!(!format!("{report:?}").contains("sesame"), "{report:?}");
    }
    let report = doctor(&stage, &[("WORKER__BATCHMAX", "1")]);
    assert_eq!(report.status, 1);
    report.says("configuration", "error", "batchmax", "");
    assert!(report.has("database-state", "skipped"));
    stage.strike().await;
}

#[tokio::test]
async fn a_login_that_may_not_is_told_what_it_may_not() {
    let mut stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    let mut url = url::Url::parse(&stage.servers.amqp).expect("a URL");
    url.set_username("reader").expect("a user");
    url.set_password(Some("s:é 😀")).expect("a password");
    let reader = doctor(&stage, &[("AMQP__URL", url.as_str())]);
    let (replies, dead) = (stage.name("replies"), stage.name("dead"));
    for exchange in ["amq.default", &replies, &dead] {
        let seen = format!(
            "may not write to the {}",
            match exchange {
                "amq.default" => "default exchange (amq.default)".to_owned(),
                _ if exchange == dead => format!("dead-letter exchange {dead}"),
                _ => format!("reply exchange {replies}"),
            }
        );
        reader.says("amqp-permissions", "error", &seen, "set_permissions");
    }
    reader.says("amqp-permissions", "ok", "may read the work queue", "");
    let bind = format!("may not bind the queue {}", stage.name("work"));
    reader.says("amqp-permissions", "error", &bind, "set_permissions");
    reader.says("amqp-topology", "error", "forbids declaring", "Permissions");
    url.set_username("gateway").expect("a user");
    url.set_password(Some("eD9_mVq4-sLh7kPc2A"))
        .expect("a password");
    logs::password_of(url.as_str());
    let gateway = doctor(&stage, &[("AMQP__URL", url.as_str())]);
    gateway.says(
        "amqp-permissions",
        "error",
        "may not read the work queue",
        "set_permissions",
    );
    // Nothing was left behind, nor taken.
    for queue in [stage.name("work"), replies, dead.clone()] {
        assert_eq!(stage.depth(&queue).await, 0, "{queue}");
    }
    stage.delete_queue(&dead).await;
    stage.set("TOPOLOGY__DECLARE", "false");
    let report = doctor(&stage, &[]);
    report.says(
        "amqp-topology",
        "error",
        &format!("queue {dead}"),
        "topology.declare = true",
    );
    report.says("amqp-topology", "ok", "arguments are not compared", "");
    stage.strike().await;
}

#[tokio::test]
async fn it_prints_a_line_a_check_and_bears_a_reader_who_leaves() {
    let stage = Stage::new().await;
    let output = stage.command(&["doctor"]).output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}");
    for line in text.lines() {
        let known = [
            "ok ",
            "warning ",
            "ERROR ",
            "skipped ",
            "         -> ",
            "0 errors, ",
        ];
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
    }
    let script = format!(
        "{} doctor | true; echo ${{PIPESTATUS[0]}}",
        program::binary().display()
    );
    let piped = Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .envs(stage.environment())
        .output()
        .expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), "0\n");
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
    stage.strike().await;
}
