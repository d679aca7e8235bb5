//! asyncapi.yaml and the pages against the program: their examples, as they happen.
//! The messages that other tests receive are checked against the documents too
//! (`support/documents.rs`).

use serde_json::{Value, json};

use super::support::documents::asyncapi;
use super::support::sessions;
use super::support::*;

mod clients;
mod generated;
mod groups;
mod http;
mod links;
mod names;
mod pages;
mod quick_start;
mod refusals;
mod shapes;

/// The rows that the quick start inserts into the ledger, with the ids of the examples.
pub fn ledger_of_the_examples() -> String {
    sessions::read("examples/ledger.sql")
}

/// The event with each `time` replaced by a constant, because times differ between runs.
fn timeless(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match name.as_str() {
                "time" => (name.clone(), json!("then")),
                _ => (name.clone(), timeless(value)),
            })
            .collect(),
        Value::Array(values) => values.iter().map(timeless).collect(),
        _ => value.clone(),
    }
}

/// An event that the document shows, and the request it answers.
struct Example {
    request: Request,
    has_client: bool,
    event: Value,
}

/// In the order of the requests.
fn examples() -> Vec<Example> {
    let messages = &asyncapi().text["components"]["messages"];
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let requests = list(&messages["revertRequest"]["examples"]);
    let ids = &messages["revertRequest"]["x-example-ids"];
    let name_of = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let mut examples = Vec::new();
    for name in [
        "usageReverted",
        "usageRevertRejected",
        "usageRevertDenied",
        "usageRevertFailed",
    ] {
        let message = &messages[name];
        for example in list(&message["examples"]) {
            let event = example["payload"].clone();
            let id = &event["data"]["request_id"];
            let asked = requests.iter().find(|request| ids[name_of(request)] == *id);
            let body = &message["x-example-bodies"][name_of(&example)];
            let body = match asked {
                Some(request) => request["payload"].to_string(),
                None => body.as_str().expect("a body").to_owned(),
            };
            let nobodys = message["x-example-without-user-id"].as_array();
            examples.push(Example {
                request: Request::raw(body).id(id.as_str().expect("an id")),
                has_client: !nobodys.is_some_and(|names| names.contains(&example["name"])),
                event,
            });
        }
    }
    assert!(examples.len() > requests.len(), "each request is answered");
    let order = |example: &Example| example.event["data"]["request_id"].to_string();
    examples.sort_by_key(order);
    examples
}

#[tokio::test]
async fn the_examples_of_asyncapi_yaml_happen() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.sql(&ledger_of_the_examples()).await;
    let login = env.login();
    let org = "0a000000-0000-4000-8000-000000000001";
    let granted = env.command(&["grants", "add", &login, org]).output();
    assert!(granted.expect("runs").status.success());
    let _worker = env.start_worker().await;
    let mut events = env.events().await;
    for example in examples() {
        let mut request = example.request;
        if example.has_client {
            request.properties = request.properties.with_user_id(login.as_str().into());
        }
        env.publish(&request).await;
        let mut event = events.answer(&request).await.json();
        if login != "revertd" {
            // The client is part of an event's id.
            event["id"] = example.event["id"].clone();
        }
        assert_eq!(timeless(&event), timeless(&example.event));
    }
    env.teardown().await;
}

/// The JSON objects in a page's blocks that are events.
fn events_of(page: &str) -> Vec<Value> {
    sessions::blocks(page)
        .iter()
        .filter_map(|block| serde_json::from_str(&block.text).ok())
        .filter(|value: &Value| value["specversion"] == "1.0")
        .collect()
}

#[test]
fn events_in_the_pages_are_those_of_asyncapi_yaml() {
    let documented: Vec<_> = examples()
        .into_iter()
        .map(|example| example.event)
        .collect();
    let pages = sessions::all();
    for path in [
        "README.md",
        "docs/clients/python.md",
        "docs/clients/javascript.md",
    ] {
        let shown = pages.iter().find(|(page, _)| page == path);
        assert_eq!(
            shown.map(|(_, page)| events_of(page).len()),
            Some(1),
            "{path}"
        );
    }
    for (path, event) in pages
        .iter()
        .flat_map(|(path, page)| events_of(page).into_iter().map(move |event| (path, event)))
    {
        let data = &event["data"];
        let same = |other: &&Value| other["data"]["request_id"] == data["request_id"];
        if let Some(other) = documented.iter().find(same) {
            assert_eq!(&event, other, "{path}");
        } else {
            // Those of the clients' sessions, which `clients` runs.
            assert!(path.starts_with("docs/clients/"), "{path}: {event}");
        }
        let pointer = "/components/schemas/UsageReverted";
        if event["type"] == "usage.reverted" {
            assert_eq!(asyncapi().complaints(pointer, &event), Vec::<String>::new());
        }
    }
}
