//! What the management API shows, on a broker of its own that has one.

use lapin::options::{ExchangeBindOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::super::alternate::declare_plain;
use super::super::starts::refused;
use super::super::support::scrape::Telemetry;
use super::super::support::*;
use super::{declare, doctor};

/// A broker with the management API, which goes with its test.
struct Managed(String);

impl Managed {
    fn start() -> (Self, Servers, String) {
        let name = format!("managed-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let managed = Self(name.clone());
        manage(&["start-managed", &name]);
        let environment = environment(&name);
        let servers = Servers {
            database: Servers::shared().database,
            amqp: environment["REVERTD_AMQP__URL"].clone(),
            publisher: Some(environment["REVERTD_TEST_PUBLISHER_URL"].clone()),
        };
        (
            managed,
            servers,
            environment["REVERTD_TEST_MANAGEMENT_URL"].clone(),
        )
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        manage(&["destroy", &self.0]);
    }
}

#[tokio::test]
async fn what_only_the_management_api_shows_is_looked_at() {
    let (managed, servers, api) = Managed::start();
    let mut stage = Stage::on(servers).await;
    stage.set("AMQP__MANAGEMENT_URL", &api);
    stage.start_worker().await.stop().await;
    let report = doctor(&stage, &[]);
    assert_eq!(report.count("errors"), 0, "{report:#?}");
    for id in [
        "amqp-management",
        "amqp-queue",
        "amqp-bindings",
        "amqp-nodes",
        "amqp-feature-flags",
    ] {
        assert!(report.has(id, "ok"), "{id}: {report:#?}");
    }
    report.says(
        "amqp-consumer-timeout",
        "skipped",
        "30 minutes",
        "rabbitmqctl eval",
    );

    // Who asks may not, is nobody, or asks where nobody answers: nothing of that is an error.
    let publisher = stage.servers.publisher.clone().expect("it has one");
    let login = url::Url::parse(&publisher).expect("a URL");
    let (user, password) = (login.username(), login.password().expect("it has one"));
    let as_somebody = |login: &str| api.replacen("//", &format!("//{login}@"), 1);
    for (url, remedy) in [
        (as_somebody(&format!("{user}:{password}")), "monitoring"),
        (as_somebody("nobody:nothing"), "monitoring"),
        ("http://127.0.0.1:1".into(), "rabbitmq-plugins enable"),
        (format!("{api}/elsewhere"), "rabbitmq-plugins enable"),
    ] {
        let report = doctor(&stage, &[("AMQP__MANAGEMENT_URL", &url)]);
        assert_eq!(report.count("errors"), 0, "{report:#?}");
        report.says("amqp-management", "skipped", "management API", remedy);
    }

    // A policy takes away what the queue was declared with.
    let work = stage.name("work");
    let pattern = format!("^{}$", work.replace('.', "\\."));
    let policy = r#"{"delivery-limit": 3, "message-ttl": 60000}"#;
    manage(&[
        "ctl",
        &managed.0,
        "set_policy",
        "--apply-to",
        "queues",
        "cut",
        &pattern,
        policy,
    ]);
    eventually("the policy is in force", async || {
        doctor(&stage, &[]).has("amqp-queue", "error")
    })
    .await;
    let report = doctor(&stage, &[]);
    report.says(
        "amqp-queue",
        "error",
        "after 3 deliveries",
        "delivery-limit",
    );
    report.says("amqp-queue", "warning", "older than 60000 ms", "policy");
    assert_eq!(report.status, 1);
    manage(&["ctl", &managed.0, "clear_policy", "cut"]);
    alternate(&managed, &stage).await;
    ladder(&managed, &mut stage).await;
    overflow(&managed, &mut stage).await;
    alarm(&managed, &stage).await;
    alone(&mut stage).await;
    stage.strike().await;
}

/// The request exchange was there before, without an alternate exchange; doctor's remedy gives it one.
async fn alternate(managed: &Managed, stage: &Stage) {
    let id = "amqp-alternate-exchange";
    assert!(doctor(stage, &[]).has(id, "ok"));
    let requests = stage.name("requests");
    stage.delete_exchange(&requests).await;
    declare_plain(stage).await;
    let report = doctor(stage, &[]);
    report.says(id, "error", "confirmed and dropped", "set_policy");
    let mut worker = stage.start_worker().await;
    worker.stop().await;
    assert!(worker.log().contains("confirmed and dropped"));
    // As a shell reads it: what is quoted is a word.
    let remedies = report.remedies("error");
    let command = remedies[0].strip_prefix("rabbitmqctl ");
    let command = command.expect("a command");
    let parts = command.split('\'').enumerate();
    let words = parts.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    let words: Vec<_> = words.collect();
    manage(&[&["ctl", managed.0.as_str()], &words[..]].concat());
    eventually("the policy is in force", async || {
        doctor(stage, &[]).has(id, "ok")
    })
    .await;
    let mut worker = stage.start_worker().await;
    worker.stop().await;
    let log = worker.log();
    assert!(!log.contains("alternate"), "{log}");
    manage(&["ctl", &managed.0, "clear_policy", "revertd-any"]);
}

/// A rung that no delay names any more is seen with what waits in it; and so is a login that is none.
async fn ladder(managed: &Managed, stage: &mut Stage) {
    let old = stage.name("retry.7m");
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), kind);
    declare(stage, &old, arguments).await;
    let message = Request::raw("{}").id("left");
    stage.publish_to(&old, &message).await;
    let seen = format!("{old} is there, and retry.delays has no such delay: 1 messages");
    eventually("the API counts it", async || {
        format!("{:?}", doctor(stage, &[])).contains(&seen)
    })
    .await;
    let report = doctor(stage, &[]);
    report.says(
        "amqp-retry-queues",
        "warning",
        &seen,
        "wait until it is empty",
    );
    let found = stage.command(&["status", "--request", "left"]).output();
    let found = String::from_utf8(found.expect("runs").stdout).expect("UTF-8");
    assert!(found.contains(&format!("waits on {old}")), "{found}");
    stage.set("TELEMETRY__LISTEN", "127.0.0.1:0");
    let mut worker = stage.spawn_worker();
    let telemetry = Telemetry::of(&mut worker).await;
    telemetry
        .shows("revertd_queue_messages", &[("queue", &old)], 1)
        .await;
    worker.stop().await;
    stage.delete_queue(&old).await;

    // Whether there is such a user only an administrator may ask.
    let login = url::Url::parse(&stage.servers.amqp).expect("a URL");
    manage(&[
        "ctl",
        &managed.0,
        "set_user_tags",
        login.username(),
        "administrator",
    ]);
    for (client, is_known) in [("nobody-at-all", false), (login.username(), true)] {
        let added = stage.command(&["grants", "add", client, "*"]).output();
        let said = String::from_utf8(added.expect("runs").stderr).expect("UTF-8");
        assert_eq!(said.contains("has no login"), !is_known, "{client}: {said}");
    }
    manage(&[
        "ctl",
        &managed.0,
        "set_user_tags",
        login.username(),
        "monitoring",
    ]);
}

/// A policy that has a full queue drop messages wins over the queue's own argument.
async fn overflow(managed: &Managed, stage: &mut Stage) {
    let set = |queue: &str| {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        let policy = r#"{"overflow": "drop-head", "max-length": 3}"#;
        let set = ["ctl", &managed.0, "set_policy", "--apply-to", "queues"];
        manage(&[&set[..], &["drop", &pattern, policy]].concat());
    };
    let (dead, work) = (stage.name("dead"), stage.name("work"));
    set(&dead);
    let seen = format!("{dead} has overflow drop-head by a policy");
    eventually("the policy is in force", async || {
        format!("{:?}", doctor(stage, &[])).contains(&seen)
    })
    .await;
    let report = doctor(stage, &[]);
    report.says("amqp-queue", "error", &seen, "out of the policy");
    set(&work);
    let seen = format!("{work} has overflow drop-head by a policy");
    eventually("the policy is in force", async || {
        format!("{:?}", doctor(stage, &[])).contains(&seen)
    })
    .await;
    stage.set("TOPOLOGY__DECLARE", "false");
    let log = refused(stage).await;
    assert!(log.contains(&seen), "{log}");
    stage.set("TOPOLOGY__DECLARE", "true");
    manage(&["ctl", &managed.0, "clear_policy", "drop"]);
}

/// Under an alarm the broker takes a connection's first message, and says only then that it takes no more.
async fn alarm(managed: &Managed, stage: &Stage) {
    let watermark = |fraction| {
        let set = "set_vm_memory_high_watermark";
        manage(&["ctl", &managed.0, set, fraction]);
    };
    watermark("0.000001");
    eventually("the alarm is seen", async || {
        doctor(stage, &[]).has("amqp-publishing", "error")
    })
    .await;
    let report = doctor(stage, &[]);
    report.says("amqp-publishing", "error", "takes no messages", "alarms");
    report.says("amqp-permissions", "skipped", "takes no messages", "");
    watermark("0.8");
    eventually("the alarm is over", async || {
        doctor(stage, &[]).has("amqp-publishing", "ok")
    })
    .await;
}

/// Nobody listens to the events, and a queue of somebody's own drops what the worker rejects.
async fn alone(stage: &mut Stage) {
    let work = stage.name("work");
    let binding = stage.channel.exchange_bind(
        "amq.fanout".into(),
        stage.name("replies").into(),
        "#".into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    binding.await.expect("bound");
    stage.delete_queue(&stage.name("replies")).await;
    stage.delete_queue(&work).await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    declare(stage, &work, arguments).await;
    let refusing = stage.name("refusing");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    declare(stage, &refusing, arguments).await;
    let binding = stage.channel.queue_bind(
        refusing.as_str().into(),
        stage.name("replies").into(),
        "result.nobody".into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    binding.await.expect("bound");
    stage.set("TOPOLOGY__REPLY_QUEUE_DECLARE", "false");
    stage.set("TOPOLOGY__DECLARE", "false");
    let report = doctor(stage, &[]);
    report.says(
        "amqp-bindings",
        "warning",
        "2 queues are bound",
        "reply_queue_declare",
    );
    report.says("amqp-bindings", "error", "no request arrives", "bind");
    report.says("amqp-bindings", "warning", "refuses events", "drop-head");
    stage.delete_queue(&refusing).await;
    report.says(
        "amqp-queue",
        "error",
        "no dead-letter exchange",
        "declare it",
    );
    report.says(
        "amqp-queue",
        "warning",
        "has no bound",
        "x-max-length-bytes",
    );
    let log = refused(stage).await;
    assert!(
        log.contains("would lose messages") && log.contains(&work),
        "{log}"
    );
}
