//! A subscriber that is confined to one org by its permissions on routing keys.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use serde_json::json;

use super::{Host, Role, program};
use crate::support::*;

const REPLIES: &str = "usage.reverts.replies";

async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.expect("a channel")
}

/// Whether the broker forbade it, which closes the channel.
fn is_forbidden<T>(done: Result<T, lapin::Error>) -> bool {
    match done.map(|_| ()).map_err(|error| error.kind().clone()) {
        Err(lapin::ErrorKind::ProtocolError(error)) => error.get_id() == 403,
        _ => false,
    }
}

#[tokio::test]
async fn a_confined_subscriber_sees_only_its_org() {
    let env = TestEnv::new().await;
    let (own, other) = (env.customer().await, env.customer().await);
    let host = Host::confined_to(own.org);
    let role = Role::worker(&env).await;
    env.sql(&format!(
        "INSERT INTO revertd.grants (client, granted_by) VALUES ('{}-submitter', 'test')",
        host.name
    ))
    .await;
    let amqp = host.url(&env, "worker");
    let mut worker = WorkerProcess::spawn(program(&env, &role.url, &amqp, &["worker"]));
    worker.ready().await;

    let connection = connect_amqp(&host.url(&env, "subscriber")).await;
    let subscriber = channel(&connection).await;
    let options = QueueDeclareOptions::default();
    let declared = subscriber.queue_declare("billing.mine".into(), options, FieldTable::default());
    declared.await.expect("it may declare queues of its own");
    let bind = async |channel: Channel, key: String| {
        let options = QueueBindOptions::default();
        let (queue, exchange) = ("billing.mine".into(), REPLIES.into());
        channel
            .queue_bind(queue, exchange, key.into(), options, FieldTable::default())
            .await
    };
    for key in [
        "#".into(),
        format!("*.{}", other.org),
        "result.#".into(),
        "result.*".into(),
    ] {
        let bound = bind(channel(&connection).await, key.clone()).await;
        assert!(is_forbidden(bound), "{key}");
    }
    // Nor by way of an exchange of its own.
    let options = ExchangeDeclareOptions::default();
    let (name, kind) = ("billing.all".into(), ExchangeKind::Fanout);
    let declared = subscriber.exchange_declare(name, kind, options, FieldTable::default());
    declared.await.expect("it may declare exchanges of its own");
    let another = channel(&connection).await;
    let bound = another.exchange_bind(
        "billing.all".into(),
        REPLIES.into(),
        "#".into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    assert!(is_forbidden(bound.await));
    // Nor from the queue of all events.
    let another = channel(&connection).await;
    let consumed = another.basic_consume(
        "usage.reverts.events".into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    assert!(is_forbidden(consumed.await));

    let key = format!("*.{}", own.org);
    bind(subscriber.clone(), key).await.expect("its own org");
    for customer in [&other, &own] {
        let usage = env.usage(customer.account, 20).await;
        let body = json!({"org_id": customer.org, "usage_id": usage, "amount": 20});
        let arguments = ["submit", "--body", &body.to_string()];
        let submitter = host.url(&env, "submitter");
        let nowhere = "postgres://nobody@nowhere/x";
        let output = program(&env, nowhere, &submitter, &arguments).output();
        assert!(output.expect("runs").status.success(), "{}", worker.log());
    }
    let mut seen = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(event) = subscriber
        .basic_get("billing.mine".into(), options)
        .await
        .expect("read")
    {
        let event: serde_json::Value = serde_json::from_slice(&event.data).expect("JSON");
        seen.push(event["data"]["org_id"].as_str().map(str::to_owned));
    }
    assert_eq!(seen, [Some(own.org.to_string())]);
    assert!(worker.stop().await.success());
    host.remove();
    super::drop_role(&env, &role).await;
    env.teardown().await;
}
