//! Whatever its routing key, what is published to the request exchange is a request.

use lapin::ExchangeKind;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;

use crate::operator::doctor::report::doctor;
use crate::support::ledger::Customer;
use crate::support::*;

/// The request exchange as it is without an alternate exchange.
pub async fn declare_plain(stage: &Stage) {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let requests = stage.name("requests");
    let declared = stage.channel.exchange_declare(
        requests.as_str().into(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    declared.await.expect("declared");
}

/// Publishes by some key, as who knows nothing of it: not mandatory.
pub async fn publish_by(stage: &Stage, key: &str, request: &Request) {
    let requests = stage.name("requests");
    let confirm = stage.channel.basic_publish(
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
    let (stage, _worker) = Stage::with_worker().await;
    let mut events = stage.events().await;
    let Customer { org, account } = stage.customer().await;
    for key in ["", "reverts", "billing.usage.revert"] {
        let usage = stage.usage(account, 5).await;
        let request = Request::revert(account, usage, 5).id(&format!("by {key}"));
        publish_by(&stage, key, &request).await;
        let event = events.next().await;
        assert_eq!(event.verdict(), "usage.reverted", "{key}");
        assert_eq!(event.routing_key, format!("result.{org}"));
    }
    stage.teardown().await;
}

#[tokio::test]
async fn an_exchange_without_an_alternate_is_told() {
    let stage = Stage::new().await;
    declare_plain(&stage).await;
    let mut worker = stage.start_worker().await;
    worker.stop().await;
    let (log, requests) = (worker.log(), stage.name("requests"));
    let policy = format!(
        "--apply-to exchanges revertd-any '^{}$' '{{\"alternate-exchange\": \"{}\"}}'",
        requests.replace('.', "\\."),
        stage.name("any")
    );
    let warned = log.lines().filter(|line| line.contains("WARN"));
    let warned: Vec<_> = warned.collect();
    assert_eq!(warned.len(), 1, "{log}");
    assert!(warned[0].contains("alternate_exchange"), "{log}");
    assert!(warned[0].contains("confirmed and dropped"), "{log}");
    assert!(warned[0].contains("rabbitmqctl set_policy"), "{log}");
    assert!(warned[0].contains(&policy), "{log}");
    let report = doctor(&stage, &[]);
    let id = "amqp-alternate-exchange";
    report.says(id, "warning", "confirmed and dropped", &policy);
    assert!(report.has("amqp-topology", "ok"), "{report:?}");
    stage.teardown().await;
}

#[tokio::test]
async fn a_pool_that_declares_nothing_needs_it() {
    let mut stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    stage.delete_exchange(&stage.name("any")).await;
    stage.set("TOPOLOGY__DECLARE", "false");
    let log = crate::operator::startup::refused(&stage).await;
    assert!(log.contains(&stage.name("any")), "{log}");
    doctor(&stage, &[]).says("amqp-topology", "error", &stage.name("any"), "create it");
    stage.teardown().await;
}
