//! A failing start logs one message with the problem, its source and the remedy; and stops.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::support::*;

/// Starts the worker, which must end by itself, and returns its standard error.
pub async fn refused(env: &TestEnv) -> String {
    let mut worker = env.spawn_worker();
    let status = worker.ended().await;
    assert_eq!(status.code(), Some(1), "{}", worker.log());
    let log = worker.log();
    assert!(
        !log.contains("panicked") && !log.contains("stack backtrace"),
        "{log}"
    );
    let complaints = log
        .lines()
        .filter(|line| line.starts_with("revertd: "))
        .count();
    assert_eq!(complaints, 1, "one message: {log}");
    log
}

#[tokio::test]
async fn a_startup_error_is_logged_once_in_the_log_format() {
    let mut env = TestEnv::new().await;
    env.set("DATABASE__MIGRATE_ON_START", "false");
    env.sql("DROP SCHEMA revertd CASCADE").await;
    let log = refused(&env).await;
    assert_eq!(log.matches("revertd migrate").count(), 1, "{log}");
    env.set("TELEMETRY__LOG_FORMAT", "json");
    let mut worker = env.spawn_worker();
    assert_eq!(worker.ended().await.code(), Some(1));
    let log = worker.log();
    let lines = log.lines().map(|line| -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let fatal: Vec<_> = lines.filter(|line| line["event"] == "fatal").collect();
    assert_eq!(fatal.len(), 1, "{log}");
    assert_eq!(fatal[0]["level"], "ERROR");
    let message = fatal[0]["message"].as_str().expect("a text");
    assert_eq!(message.matches("revertd migrate").count(), 1, "{log}");
    env.teardown().await;
}

#[tokio::test]
async fn an_error_that_needs_an_operator_ends_the_start() {
    let database = Servers::shared().database;
    let amqp = Servers::shared().amqp;
    logs::secret("sesame");
    let wrong = |url: &str, user: &str, password: &str, path: &str| {
        let mut url = url::Url::parse(url).expect("a URL");
        if !user.is_empty() {
            url.set_username(user).expect("a user");
            url.set_password(Some(password)).expect("a password");
        }
        if !path.is_empty() {
            url.set_path(path);
        }
        url.to_string()
    };
    for (key, value, said) in [
        (
            "DATABASE__URL",
            wrong(&database, "nobody", "sesame", ""),
            &["refuses the login", "database.url"][..],
        ),
        (
            "DATABASE__URL",
            wrong(&database, "", "", "nowhere"),
            &["nowhere", "create the database"],
        ),
        (
            "AMQP__URL",
            wrong(&amqp, "nobody", "sesame", ""),
            &["refuses the login", "amqp.url"],
        ),
        (
            "AMQP__URL",
            wrong(&amqp, "", "", "nowhere"),
            &["refuses the virtual host", "amqp.url"],
        ),
        (
            "DATABASE__MIGRATE_ON_START",
            "false".into(),
            &["revertd migrate"],
        ),
        (
            "DATABASE__URL",
            "postgres://x@localhost:port/x".into(),
            &["database.url"],
        ),
        (
            "DATABASE__URL",
            "postgres://x@localhost/x?sslmode=allow".into(),
            &["database.url", "sslmode=allow", "verify-full"],
        ),
        ("WORKER__BATCHMAX", "1".into(), &["batchmax", "worker"]),
    ] {
        let mut env = TestEnv::new().await;
        env.set(key, &value);
        if key == "DATABASE__MIGRATE_ON_START" {
            env.sql("DROP SCHEMA revertd CASCADE").await;
        }
        let log = refused(&env).await;
        for said in said {
            assert!(log.contains(said), "{key}={value}: {log}");
        }
        assert!(!log.contains("sesame"), "{log}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_reported() {
    let env = TestEnv::new().await;
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let name = env.name("work");
    env.channel
        .queue_declare(name.as_str().into(), options, FieldTable::default())
        .await
        .expect("declared");
    let log = refused(&env).await;
    assert!(
        log.contains(&name) && log.contains("other arguments"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn without_declare_missing_topology_is_reported() {
    let mut env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    env.set("TOPOLOGY__DECLARE", "false");
    env.start_worker().await.stop().await;
    let rung = env.name("retry.200ms");
    let options = lapin::options::QueueDeleteOptions::default();
    env.channel
        .queue_delete(rung.as_str().into(), options)
        .await
        .expect("deleted");
    let log = refused(&env).await;
    assert!(
        log.contains(&rung) && log.contains("topology.declare"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_missing_grant_is_reported() {
    let mut env = TestEnv::new().await;
    let role = format!("r_{}", &env.database[2..]);
    env.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'sesame'; GRANT USAGE ON SCHEMA revertd TO {role}"
    ))
    .await;
    let mut url =
        url::Url::parse(&with_database(&env.servers.database, &env.database)).expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("sesame")).expect("a password");
    env.set("DATABASE__URL", url.as_str());
    env.set("DATABASE__MIGRATE_ON_START", "false");
    let log = refused(&env).await;
    assert!(
        log.contains("permission denied") && log.contains("GRANT "),
        "{log}"
    );
    env.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
    env.teardown().await;
}

#[tokio::test]
async fn an_unreachable_server_is_logged_and_waited_for() {
    for key in ["DATABASE__URL", "AMQP__URL"] {
        let mut env = TestEnv::new().await;
        let vacant = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = vacant.local_addr().expect("bound").port();
        drop(vacant);
        let url = match key {
            "AMQP__URL" => format!("amqp://x:sesame@127.0.0.1:{port}/%2f"),
            _ => format!("postgres://x:sesame@127.0.0.1:{port}/x"),
        };
        env.set(key, &url);
        let mut worker = env.spawn_worker();
        worker.logged("check that the server runs").await;
        let log = worker.log();
        assert!(
            log.contains(&format!("127.0.0.1:{port}")) && log.contains("retry_in"),
            "{log}"
        );
        assert!(!log.contains("sesame"), "{log}");
        assert!(worker.stop().await.success(), "a stop ends the wait");
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_stop_finishes_deliveries_in_flight() {
    for signal in ["TERM", "INT"] {
        let env = TestEnv::new().await;
        let mut worker = env.start_worker().await;
        let (mut events, customer) = (env.events().await, env.customer().await);
        let mut requests = Vec::new();
        for _ in 0..400 {
            let usage = env.usage(customer.account, 20).await;
            requests.push(Request::revert(customer.account, usage, 20));
        }
        for request in &requests[..200] {
            env.publish(request).await;
        }
        worker.signal(signal);
        for request in &requests[200..] {
            env.publish(request).await;
        }
        assert!(worker.ended().await.success(), "{}", worker.log());
        let mut next = env.start_worker().await;
        for request in &requests {
            assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
        }
        assert!(next.stop().await.success());
        let reverted = |worker: &WorkerProcess| {
            let log = worker.log();
            let (_, rest) = log.split_once("reverted=").expect("the tally");
            rest.split(' ')
                .next()
                .and_then(|count| count.parse::<usize>().ok())
                .expect("a number")
        };
        assert_eq!(reverted(&worker) + reverted(&next), requests.len());
        env.assert_ledger_is_sound().await;
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_stop_ends_within_the_shutdown_timeout() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__SHUTDOWN_TIMEOUT", "300ms");
    env.set("DATABASE__LOCK_TIMEOUT", "30s");
    let mut worker = env.start_worker().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let another = env.usage(customer.account, 20).await;
    let request = Request::revert(customer.account, usage, 20);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND application_name = 'revertd'";
    let blocker = connect_db(&with_database(&env.servers.database, &env.database)).await;
    let lock = "BEGIN; LOCK TABLE billing_transactions";
    blocker.batch_execute(lock).await.expect("locked");
    env.publish(&request).await;
    eventually("it waits", async || env.count(waiting).await == 1).await;
    let status = worker.stop().await;
    assert_eq!(status.code(), Some(1));
    assert!(
        worker.log().contains("will be delivered again"),
        "{}",
        worker.log()
    );

    blocker.batch_execute("COMMIT").await.expect("released");
    env.set("WORKER__SHUTDOWN_TIMEOUT", "5m");
    let mut worker = env.start_worker().await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    blocker.batch_execute(lock).await.expect("locked");
    let request = Request::revert(customer.account, another, 20);
    env.publish(&request).await;
    eventually("it waits again", async || env.count(waiting).await == 1).await;
    worker.signal("TERM");
    worker.logged("stopping").await;
    worker.signal("TERM");
    assert_eq!(worker.ended().await.code(), Some(143));

    blocker.batch_execute("COMMIT").await.expect("released");
    let _worker = env.start_worker().await;
    assert_eq!(events.answer(&request).await.verdict(), "usage.reverted");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
