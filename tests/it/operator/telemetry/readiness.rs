//! `/healthz` and `/readyz`, from before the servers answer until after the stop signal.

use crate::support::proxy::{Conditions, Direction};
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

#[tokio::test]
async fn readiness_needs_a_consumer_and_a_database() {
    let mut env = TestEnv::new().await;
    let (name, value) = LISTEN;
    env.set(name, value);
    let (database, broker) = (env.proxy_database(), env.proxy_amqp());
    database.refuse(true);
    broker.refuse(true);
    let mut worker = env.spawn_worker();
    let telemetry = Telemetry::of(&mut worker).await;
    telemetry.not_ready("paused: the database: ").await;
    assert_eq!(telemetry.get("/healthz").await.0, 200);
    let paused = |reason| [("reason", reason)];
    telemetry
        .shows("revertd_paused", &paused("database"), 1)
        .await;
    // The broker is available all the time, although the worker does not use it.
    let of_broker = [("server", "broker")];
    broker.refuse(false);
    telemetry
        .shows("revertd_connection_up", &of_broker, 1)
        .await;
    broker.refuse(true);
    broker.end(crate::support::proxy::Ending::Reset);
    database.refuse(false);
    telemetry.not_ready("paused: the broker: ").await;
    telemetry
        .shows("revertd_paused", &paused("broker"), 1)
        .await;
    telemetry.shows("revertd_consuming", &[], 0).await;
    broker.refuse(false);
    telemetry.ready().await;
    telemetry.shows("revertd_consuming", &[], 1).await;
    telemetry.shows("revertd_paused", &[], 0).await;
    telemetry.shows("revertd_connection_up", &[], 2).await;

    // The broker goes, and comes back.
    broker.refuse(true);
    broker.end(crate::support::proxy::Ending::Reset);
    telemetry.not_ready("paused: the broker: ").await;
    telemetry
        .shows("revertd_connection_up", &[("server", "broker")], 0)
        .await;
    broker.heal();
    broker.refuse(false);
    telemetry.ready().await;

    // The database falls silent while there is no work that would notice.
    database.set(Conditions::silent(&[Direction::ToServer]));
    telemetry.not_ready("the database: ").await;
    let (_, why) = telemetry.get("/readyz").await;
    let url = url::Url::parse(&env.servers.database).expect("a URL");
    let password = url.password().expect("tests use one");
    assert!(!why.contains(password) && !why.contains("://"), "{why}");
    assert!(
        !worker.log().contains("does not answer"),
        "nobody needed it"
    );
    telemetry
        .shows("revertd_connection_up", &[("server", "database")], 0)
        .await;
    database.heal();
    telemetry.ready().await;
    assert!(worker.stop().await.success());
    drop((database, broker));
    env.teardown().await;
}

#[tokio::test]
async fn a_stopping_worker_is_alive_but_not_ready() {
    let mut env = TestEnv::new().await;
    let (name, value) = LISTEN;
    env.set(name, value);
    env.set("WORKER__SHUTDOWN_TIMEOUT", "30s");
    let broker = env.proxy_amqp();
    let mut worker = env.start_worker().await;
    let telemetry = Telemetry::of(&mut worker).await;
    telemetry.ready().await;
    // The broker does not answer the requests of a stop for a while.
    broker.set(Conditions::silent(&[Direction::ToClient]));
    worker.signal("TERM");
    telemetry.not_ready("stopping: ").await;
    assert_eq!(telemetry.get("/healthz").await.0, 200);
    assert_eq!(telemetry.get("/nothing").await.0, 404);
    worker.kill();
    drop(broker);
    env.teardown().await;
}

#[tokio::test]
async fn requests_in_flight_and_their_age_are_shown() {
    let mut env = TestEnv::new().await;
    let (name, value) = LISTEN;
    env.set(name, value);
    let database = env.proxy_database();
    let mut worker = env.start_worker().await;
    let telemetry = Telemetry::of(&mut worker).await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    database.set(Conditions::silent(&[Direction::ToClient]));
    let request = Request::revert(customer.account, usage, 5);
    env.publish(&request).await;
    telemetry.shows("revertd_in_flight_messages", &[], 1).await;
    database.refuse(true);
    database.end(crate::support::proxy::Ending::Reset);
    telemetry.not_ready("paused: the database: ").await;
    telemetry.shows("revertd_in_flight_messages", &[], 0).await;
    let failed = [("error_type", "unavailable")];
    let page = telemetry.metrics().await;
    assert_eq!(
        page.count("db_client_operation_duration_seconds_count", &failed),
        1
    );
    let unsettled = [("error_type", "unsettled")];
    assert_eq!(
        page.count("messaging_process_duration_seconds_count", &unsettled),
        1
    );
    // The batch is in flight nowhere, and its age still grows.
    let age = async || {
        telemetry
            .metrics()
            .await
            .sum("revertd_oldest_unsettled_seconds", &[])
    };
    let then = age().await;
    assert!(then > 0.0);
    eventually("it grows older", async || age().await > then).await;
    database.heal();
    database.refuse(false);
    events.answer(&request).await;
    eventually("nothing is unsettled", async || age().await < f64::EPSILON).await;
    telemetry.shows("revertd_redeliveries_total", &[], 1).await;
    drop(worker);
    drop(database);
    env.teardown().await;
}

#[tokio::test]
async fn a_taken_telemetry_port_stops_the_start() {
    let mut env = TestEnv::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    env.set("TELEMETRY__LISTEN", &address);
    let output = env.command(&["worker"]).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let expected = format!("revertd: telemetry.listen: cannot listen on {address}: ");
    assert!(stderr.contains(&expected), "{stderr}");
    assert!(stderr.contains("set it to an address"), "{stderr}");
    env.teardown().await;
}
