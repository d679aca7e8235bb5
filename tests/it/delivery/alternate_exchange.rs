//! A message to the request exchange is a request with any routing key.

use lapin::ExchangeKind;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;

use crate::operator::doctor::report::doctor;
use crate::support::ledger::Customer;
use crate::support::*;

/// The request exchange as it is without an alternate exchange.
pub async fn declare_plain(env: &TestEnv) {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let requests = env.name("requests");
    let declared = env.channel.exchange_declare(
        requests.as_str().into(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    declared.await.expect("declared");
}

/// Publishes by some key, as who knows nothing of it: not mandatory.
pub async fn publish_by(env: &TestEnv, key: &str, request: &Request) {
    let requests = env.name("requests");
    let confirm = env.channel.basic_publish(
        requests.as_str().into(),
        key.into(),
        BasicPublishOptions::default(),
        &request.body,
        request.properties.clone(),
    );
    confirm.await.expect("written").await.expect("confirmed");
}

#[tokio::test]
async fn a_request_arrives_by_any_routing_key() {
    let (env, _worker) = TestEnv::with_worker().await;
    let mut events = env.events().await;
    let Customer { org, account } = env.customer().await;
    for key in ["", "reverts", "billing.usage.revert"] {
        let usage = env.usage(account, 5).await;
        let request = Request::revert(account, usage, 5).id(&format!("by {key}"));
        publish_by(&env, key, &request).await;
        let event = events.next().await;
        assert_eq!(event.verdict(), "usage.reverted", "{key}");
        assert_eq!(event.routing_key, format!("result.{org}"));
    }
    env.teardown().await;
}

#[tokio::test]
async fn an_exchange_without_an_alternate_is_reported() {
    let env = TestEnv::new().await;
    declare_plain(&env).await;
    let mut worker = env.start_worker().await;
    worker.stop().await;
    let (log, requests) = (worker.log(), env.name("requests"));
    let policy = format!(
        "--apply-to exchanges revertd-any '^{}$' '{{\"alternate-exchange\": \"{}\"}}'",
        requests.replace('.', "\\."),
        env.name("any")
    );
    let warned = log.lines().filter(|line| line.contains("WARN"));
    let warned: Vec<_> = warned.collect();
    assert_eq!(warned.len(), 1, "{log}");
    assert!(warned[0].contains("alternate_exchange"), "{log}");
    assert!(warned[0].contains("confirmed and dropped"), "{log}");
    assert!(warned[0].contains("rabbitmqctl set_policy"), "{log}");
    assert!(warned[0].contains(&policy), "{log}");
    let report = doctor(&env, &[]);
    let id = "amqp-alternate-exchange";
    report.says(id, "warning", "confirmed and dropped", &policy);
    assert!(report.has("amqp-topology", "ok"), "{report:?}");
    env.teardown().await;
}

#[tokio::test]
async fn without_declare_the_alternate_exchange_is_required() {
    let mut env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    env.delete_exchange(&env.name("any")).await;
    env.set("TOPOLOGY__DECLARE", "false");
    let log = crate::operator::startup::refused(&env).await;
    assert!(log.contains(&env.name("any")), "{log}");
    doctor(&env, &[]).says("amqp-topology", "error", &env.name("any"), "start a worker");
    env.teardown().await;
}
