//! Checks that need the management API, on a private broker that has one.

use lapin::options::{ExchangeBindOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::report::doctor;
use super::setup::declare;
use crate::delivery::alternate_exchange::declare_plain;
use crate::operator::startup::refused;
use crate::support::scrape::Telemetry;
use crate::support::*;

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
async fn the_management_api_is_read_for_policies_and_limits() {
    let (managed, servers, api) = Managed::start();
    let mut env = TestEnv::on(servers).await;
    env.set("AMQP__MANAGEMENT_URL", &api);
    env.start_worker().await.stop().await;
    let report = doctor(&env, &[]);
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

    // A login without permission, an unknown login or a closed port is not an error.
    let publisher = env.servers.publisher.clone().expect("it has one");
    let login = url::Url::parse(&publisher).expect("a URL");
    let (user, password) = (login.username(), login.password().expect("it has one"));
    let as_somebody = |login: &str| api.replacen("//", &format!("//{login}@"), 1);
    for (url, remedy) in [
        (as_somebody(&format!("{user}:{password}")), "monitoring"),
        (as_somebody("nobody:nothing"), "monitoring"),
        ("http://127.0.0.1:1".into(), "rabbitmq-plugins enable"),
        (format!("{api}/elsewhere"), "rabbitmq-plugins enable"),
    ] {
        let report = doctor(&env, &[("AMQP__MANAGEMENT_URL", &url)]);
        assert_eq!(report.count("errors"), 0, "{report:#?}");
        report.says("amqp-management", "skipped", "management API", remedy);
    }

    // A policy overrides the arguments of the queue.
    let work = env.name("work");
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
        doctor(&env, &[]).has("amqp-queue", "error")
    })
    .await;
    let report = doctor(&env, &[]);
    report.says(
        "amqp-queue",
        "error",
        "after 3 deliveries",
        "delivery-limit",
    );
    report.says("amqp-queue", "warning", "older than 60000 ms", "policy");
    assert_eq!(report.status, 1);
    manage(&["ctl", &managed.0, "clear_policy", "cut"]);
    alternate(&managed, &env).await;
    ladder(&managed, &mut env).await;
    overflow(&managed, &mut env).await;
    alarm(&managed, &env).await;
    alone(&mut env).await;
    env.teardown().await;
}

/// The request exchange was there before, without an alternate exchange; doctor's remedy gives it
/// one.
async fn alternate(managed: &Managed, env: &TestEnv) {
    let id = "amqp-alternate-exchange";
    assert!(doctor(env, &[]).has(id, "ok"));
    let requests = env.name("requests");
    env.delete_exchange(&requests).await;
    declare_plain(env).await;
    let report = doctor(env, &[]);
    report.says(id, "error", "confirmed and dropped", "set_policy");
    let mut worker = env.start_worker().await;
    worker.stop().await;
    assert!(worker.log().contains("confirmed and dropped"));
    // Split as a shell does: a quoted text is a word.
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
        doctor(env, &[]).has(id, "ok")
    })
    .await;
    let mut worker = env.start_worker().await;
    worker.stop().await;
    let log = worker.log();
    assert!(!log.contains("alternate"), "{log}");
    manage(&["ctl", &managed.0, "clear_policy", "revertd-any"]);
}

/// A rung whose delay is no longer configured is reported with its messages, and so is an unknown
/// login.
async fn ladder(managed: &Managed, env: &mut TestEnv) {
    let old = env.name("retry.7m");
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), kind);
    declare(env, &old, arguments).await;
    let message = Request::raw("{}").id("left");
    env.publish_to(&old, &message).await;
    let seen = format!("{old} is there, and retry.delays has no such delay: 1 messages");
    eventually("the API counts it", async || {
        format!("{:?}", doctor(env, &[])).contains(&seen)
    })
    .await;
    let report = doctor(env, &[]);
    report.says(
        "amqp-retry-queues",
        "warning",
        &seen,
        "wait until it is empty",
    );
    let found = env.command(&["status", "--request", "left"]).output();
    let found = String::from_utf8(found.expect("runs").stdout).expect("UTF-8");
    assert!(found.contains(&format!("waits on {old}")), "{found}");
    env.set("TELEMETRY__LISTEN", "127.0.0.1:0");
    let mut worker = env.spawn_worker();
    let telemetry = Telemetry::of(&mut worker).await;
    telemetry
        .shows("revertd_queue_messages", &[("queue", &old)], 1)
        .await;
    worker.stop().await;
    env.delete_queue(&old).await;

    // Whether there is such a user only an administrator may ask.
    let login = url::Url::parse(&env.servers.amqp).expect("a URL");
    manage(&[
        "ctl",
        &managed.0,
        "set_user_tags",
        login.username(),
        "administrator",
    ]);
    for (client, is_known) in [("nobody-at-all", false), (login.username(), true)] {
        let added = env.command(&["grants", "add", client, "*"]).output();
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
async fn overflow(managed: &Managed, env: &mut TestEnv) {
    let set = |queue: &str| {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        let policy = r#"{"overflow": "drop-head", "max-length": 3}"#;
        let set = ["ctl", &managed.0, "set_policy", "--apply-to", "queues"];
        manage(&[&set[..], &["drop", &pattern, policy]].concat());
    };
    let (dead, work) = (env.name("dead"), env.name("work"));
    set(&dead);
    let seen = format!("{dead} has overflow drop-head by a policy");
    eventually("the policy is in force", async || {
        format!("{:?}", doctor(env, &[])).contains(&seen)
    })
    .await;
    let report = doctor(env, &[]);
    report.says("amqp-queue", "error", &seen, "out of the policy");
    set(&work);
    let seen = format!("{work} has overflow drop-head by a policy");
    eventually("the policy is in force", async || {
        format!("{:?}", doctor(env, &[])).contains(&seen)
    })
    .await;
    env.set("TOPOLOGY__DECLARE", "false");
    let log = refused(env).await;
    assert!(log.contains(&seen), "{log}");
    env.set("TOPOLOGY__DECLARE", "true");
    manage(&["ctl", &managed.0, "clear_policy", "drop"]);
}

/// Under an alarm the broker takes a connection's first message, and says only then that it takes
/// no more.
async fn alarm(managed: &Managed, env: &TestEnv) {
    let watermark = |fraction| {
        let set = "set_vm_memory_high_watermark";
        manage(&["ctl", &managed.0, set, fraction]);
    };
    watermark("0.000001");
    eventually("the alarm is seen", async || {
        doctor(env, &[]).has("amqp-publishing", "error")
    })
    .await;
    let report = doctor(env, &[]);
    report.says("amqp-publishing", "error", "blocks publishers", "alarms");
    report.says("amqp-permissions", "skipped", "takes no messages", "");
    watermark("0.8");
    eventually("the alarm is over", async || {
        doctor(env, &[]).has("amqp-publishing", "ok")
    })
    .await;
}

/// No queue is bound for the events, and a foreign queue drops the messages that workers reject.
async fn alone(env: &mut TestEnv) {
    let work = env.name("work");
    let binding = env.channel.exchange_bind(
        "amq.fanout".into(),
        env.name("replies").into(),
        "#".into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    binding.await.expect("bound");
    env.delete_queue(&env.name("replies")).await;
    env.delete_queue(&work).await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    declare(env, &work, arguments).await;
    let refusing = env.name("refusing");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    declare(env, &refusing, arguments).await;
    let binding = env.channel.queue_bind(
        refusing.as_str().into(),
        env.name("replies").into(),
        "result.nobody".into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    binding.await.expect("bound");
    env.set("TOPOLOGY__REPLY_QUEUE_DECLARE", "false");
    env.set("TOPOLOGY__DECLARE", "false");
    let report = doctor(env, &[]);
    report.says(
        "amqp-bindings",
        "warning",
        "2 queues are bound",
        "reply_queue_declare",
    );
    report.says("amqp-bindings", "error", "no request arrives", "bind");
    report.says("amqp-bindings", "warning", "refuses events", "drop-head");
    env.delete_queue(&refusing).await;
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
    let log = refused(env).await;
    assert!(
        log.contains("would lose messages") && log.contains(&work),
        "{log}"
    );
}
