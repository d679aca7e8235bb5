//! Names, arguments, types and reasons in asyncapi.yaml against the configuration, the broker and
//! the program.

use std::collections::BTreeSet;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use revertd::domain::refusal::{FailureReason, RefusalReason};

use crate::support::documents::asyncapi;
use crate::support::*;

#[test]
fn documented_reasons_and_codes_are_those_of_the_code() {
    let refusals = RefusalReason::ALL.iter().map(|reason| reason.row());
    let failures = FailureReason::ALL.iter().map(|reason| reason.row());
    let coded: BTreeSet<(i64, String)> = refusals
        .chain(failures)
        .map(|row| (row.code.number().into(), row.reason.to_owned()))
        .collect();
    let mut documented = BTreeSet::new();
    for list in ["Rejection", "Failure"] {
        let pointer = format!("/components/schemas/{list}/allOf/1/oneOf");
        for reference in asyncapi().at(&pointer).as_array().expect("a list") {
            let schema = asyncapi().resolved(reference);
            let (code, contains) = (
                &schema["properties"]["code"],
                &schema["properties"]["details"],
            );
            let reason = &contains["contains"]["properties"]["reason"]["const"];
            let one = code.get("const").map(|code| vec![code.clone()]);
            let all = one.unwrap_or_else(|| code["enum"].as_array().expect("codes").clone());
            for code in all {
                let reason = reason.as_str().expect("a reason").to_owned();
                documented.insert((code.as_i64().expect("a number"), reason));
            }
        }
    }
    assert_eq!(documented, coded);
}

#[test]
fn documented_names_are_the_configured_defaults() {
    let defaults: toml::Table =
        toml::from_str(include_str!("../../../config/revertd.toml")).expect("TOML");
    let topology = |key: &str| defaults["topology"][key].as_str().expect("a name");
    let exchange = |channel: &str| {
        asyncapi().at(&format!("/channels/{channel}/bindings"))["amqp"]["exchange"].clone()
    };
    for (channel, key) in [
        ("requests", "request_exchange"),
        ("anyRequests", "alternate_exchange"),
        ("results", "reply_exchange"),
        ("errors", "reply_exchange"),
        ("denied", "reply_exchange"),
        ("deadLetters", "dead_letter_exchange"),
    ] {
        assert_eq!(exchange(channel)["name"], topology(key), "{channel}");
    }
    assert_eq!(
        asyncapi().at("/channels/requests")["address"],
        topology("request_key")
    );
    assert_eq!(
        asyncapi().at("/channels/deadLetters")["address"],
        topology("dead_letter_queue")
    );
    let mut names = vec![topology("work_queue").to_owned()];
    for delay in defaults["retry"]["delays"].as_array().expect("delays") {
        names.push(format!(
            "{}.{}",
            topology("retry_queue_prefix"),
            delay.as_str().expect("a text")
        ));
    }
    let last = ["reply_queue", "denied_queue", "dead_letter_queue"];
    names.extend(last.map(|key| topology(key).to_owned()));
    let queues = asyncapi()
        .at("/servers/rabbitmq/x-queues")
        .as_array()
        .expect("queues");
    assert_eq!(
        queues
            .iter()
            .map(|queue| queue["name"].clone())
            .collect::<Vec<_>>(),
        names
    );
}

/// The broker refuses a second declaration with other arguments.
#[tokio::test]
async fn the_topology_is_declared_as_asyncapi_yaml_says() {
    let settings = [("RETRY__DELAYS", "1s,5s,30s,2m,10m")];
    let (env, _worker) = TestEnv::with_worker_set(&settings).await;
    let named = |name: &str| match name.strip_prefix("usage.reverts") {
        Some("") => env.name("work"),
        Some(".events") => env.name("replies"),
        Some(rest) => format!("{}{rest}", env.prefix),
        None => name.to_owned(),
    };
    let channels = asyncapi().text["channels"].as_object().expect("channels");
    for channel in channels.values() {
        let exchange = &asyncapi().resolved(&channel["bindings"])["amqp"]["exchange"];
        let name = match exchange["name"].as_str().expect("a name") {
            "usage.reverts" => env.name("requests"),
            name => named(name),
        };
        let kind = match exchange["type"].as_str().expect("a type") {
            "direct" => ExchangeKind::Direct,
            "topic" => ExchangeKind::Topic,
            "fanout" => ExchangeKind::Fanout,
            other => panic!("{other}"),
        };
        let options = ExchangeDeclareOptions {
            durable: exchange["durable"] == true,
            auto_delete: exchange["autoDelete"] == true,
            ..Default::default()
        };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = exchange["x-alternate-exchange"].as_str() {
            let alternate = AMQPValue::LongString(named(alternate).into());
            arguments.insert("alternate-exchange".into(), alternate);
        }
        let declared = env
            .channel
            .exchange_declare(name.as_str().into(), kind, options, arguments);
        declared
            .await
            .unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    }
    for queue in asyncapi()
        .at("/servers/rabbitmq/x-queues")
        .as_array()
        .expect("queues")
    {
        let name = named(queue["name"].as_str().expect("a name"));
        let mut arguments = FieldTable::default();
        for (key, value) in queue["arguments"].as_object().expect("arguments") {
            let value = match value.as_str() {
                Some(text) if key.starts_with("x-dead-letter") => {
                    AMQPValue::LongString(named(text).into())
                }
                Some(text) => AMQPValue::LongString(text.into()),
                None => AMQPValue::LongLongInt(value.as_i64().expect("a number")),
            };
            arguments.insert(key.as_str().into(), value);
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let declared = env
            .channel
            .queue_declare(name.as_str().into(), options, arguments)
            .await;
        declared.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    }
    env.teardown().await;
}
