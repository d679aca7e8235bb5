//! asyncapi.yaml and README.md against the program: their examples, as they happen.
//! What any test receives is checked against the document too (`support/documents.rs`).

use regex::Regex;
use serde_json::{Value, json};

use super::support::documents::asyncapi;
use super::support::*;

mod http;
mod names;
mod shapes;

/// What `By hand` of README.md puts into the ledger: the ids of the examples.
fn ledger_of_the_examples() -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("<<'SQL'\n").expect("the ledger");
    let (sql, _) = rest.split_once("\nSQL\n").expect("its end");
    sql.to_owned()
}

/// The event with each `time` in it as one text, which nobody can foresee.
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

/// The JSON objects in README.md's blocks that are events.
fn events_of_the_readme() -> Vec<Value> {
    let block = Regex::new(r"(?ms)^```(?:json)?\n(\{.*?\n?\})\n```$").expect("an expression");
    block
        .captures_iter(include_str!("../../README.md"))
        .filter_map(|found| serde_json::from_str(&found[1]).ok())
        .filter(|value: &Value| value["specversion"] == "1.0")
        .collect()
}

#[test]
fn events_in_the_readme_are_those_of_asyncapi_yaml() {
    let documented: Vec<_> = examples()
        .into_iter()
        .map(|example| example.event)
        .collect();
    let shown = events_of_the_readme();
    assert!(shown.len() >= 5, "{shown:#?}");
    for event in shown {
        let data = &event["data"];
        let same = |other: &&Value| other["data"]["request_id"] == data["request_id"];
        if let Some(other) = documented.iter().find(same) {
            assert_eq!(&event, other);
        } else {
            // Those of the examples of clients; `make test-contract` runs them.
            let id = data["request_id"].as_str().expect("an id");
            assert!(["job-6", "job-7"].contains(&id));
        }
        let pointer = "/components/schemas/UsageReverted";
        if event["type"] == "usage.reverted" {
            assert_eq!(asyncapi().complaints(pointer, &event), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn submit_behaves_as_the_readme_says() {
    let (env, _worker) = TestEnv::with_worker().await;
    env.sql(&ledger_of_the_examples()).await;
    let block = Regex::new(r"(?ms)^```sh\n(revertd submit.*?)^```\n\n```\n(.*?)^```$")
        .expect("an expression");
    let time = Regex::new(r"\d{4}-\d\d-\d\dT[0-9:.]+Z").expect("an expression");
    let id = Regex::new(r#""id":"[0-9a-f-]+""#).expect("an expression");
    let foreseen = |text: &str| {
        id.replace_all(&time.replace_all(text, "then"), "")
            .into_owned()
    };
    let binary = program::binary();
    let folder = binary.parent().expect("a folder").to_str().expect("UTF-8");
    let blocks: Vec<_> = block
        .captures_iter(include_str!("../../README.md"))
        .collect();
    assert_eq!(blocks.len(), 2, "by hand, and the examples");
    for found in blocks {
        let output = std::process::Command::new("sh")
            .args(["-c", &found[1]])
            .env_clear()
            .envs(env.environment())
            .env("PATH", format!("{folder}:/usr/bin:/bin"))
            .output()
            .expect("a shell");
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(foreseen(&told), foreseen(&found[2]));
    }
    env.teardown().await;
}
