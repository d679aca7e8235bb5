//! The sessions of docs/clients: the events that they print, and the call over HTTP. `make
//! test-contract` runs the programs themselves, and installs the packages that they need.

use regex::Regex;
use serde_json::{Value, json};

use super::timeless;
use crate::operator::permissions::{Host, program};
use crate::support::gateway::GatewayProcess;
use crate::support::sessions::{self, RABBITMQCTL, Shell};
use crate::support::*;

const ORG: &str = "0a000000-0000-4000-8000-000000000001";

/// Pages of programs whose session prints an event, and the marker of the session.
const PROGRAMS: [(&str, &str); 2] = [
    ("docs/clients/python.md", "session: pika"),
    ("docs/clients/javascript.md", "session: amqplib"),
];

/// The arguments of a session, and the event below it.
fn recorded(path: &str, marker: &str) -> ([String; 4], Value) {
    let page = sessions::read(path);
    let blocks = sessions::blocks(sessions::after(&page, marker));
    let command = blocks[0].text.replace("\\\n", " ");
    let words = command.split_whitespace().skip(2).map(str::to_owned);
    let arguments: Vec<_> = words.collect();
    let event = serde_json::from_str(&blocks[1].text).expect("an event");
    (arguments.try_into().expect("four arguments"), event)
}

#[tokio::test]
async fn the_events_of_the_clients_sessions_happen() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.sql(&super::ledger_of_the_examples()).await;
    let login = env.login();
    let granted = env.command(&["grants", "add", &login, ORG]).output();
    assert!(granted.expect("runs").status.success());
    let _worker = env.start_worker().await;
    let mut events = env.events().await;
    for (path, marker) in PROGRAMS {
        let ([usage, amount, org, id], recorded) = recorded(path, marker);
        let body = json!({"usage_id": usage, "amount": amount, "org_id": org});
        let mut request = Request::json(&body).id(&id).correlated(&id);
        request.properties = request.properties.with_user_id(login.as_str().into());
        env.publish(&request).await;
        let mut event = events.answer(&request).await.json();
        if login != "revertd" {
            // The client is part of an event's id.
            event["id"] = recorded["id"].clone();
        }
        assert_eq!(timeless(&event), timeless(&recorded), "{path}");
    }
    env.teardown().await;
}

#[test]
fn each_client_has_a_page_that_shows_and_runs_it() {
    let folder = sessions::root().join("tests/clients");
    let pages: Vec<_> = sessions::all();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("UTF-8").to_owned();
        let include = format!("{{{{#include ../../tests/clients/{name}}}}}");
        let shown = pages.iter().filter(|(_, page)| page.contains(&include));
        assert_eq!(shown.count(), 1, "{name}");
    }
}

/// The first lines make the login, which the broker gets from a file here: `rabbitmqctl` takes a
/// second for each. `billing` has another name, since users are common to all virtual hosts.
#[tokio::test]
async fn the_call_over_http_goes_as_it_is_printed() {
    let env = TestEnv::new().await;
    env.sql(&super::ledger_of_the_examples()).await;
    let mut host = Host::new();
    let page = sessions::read("docs/clients/http.md");
    let marker = "session: http";
    let block = sessions::marked(&page, marker);
    let expected = &sessions::blocks(sessions::after(&page, marker))[1].text;
    let user = host.user("billing");
    let name = Regex::new("billing([ :])").expect("an expression");
    let block = name.replace_all(&block, format!("{user}$1"));
    let (before, call) = block
        .split_once("revertd gateway &\n")
        .expect("the gateway");

    let url = with_database(&env.servers.database, &env.database);
    let shell = Shell::new()
        .stand_in("rabbitmqctl", RABBITMQCTL)
        .variable("REVERTD_DATABASE__URL", &url);
    let output = shell.run(before);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    host.import(&shell.record("rabbitmqctl"));
    let amqp = host.url(&env, "worker");
    let mut worker = WorkerProcess::spawn(program(&env, &url, &amqp, &["worker"]));
    worker.ready().await;
    let amqp = host.url(&env, "gateway");
    let mut gateway = program(&env, &url, &amqp, &["gateway"]);
    gateway.env("REVERTD_GATEWAY__LISTEN", "127.0.0.1:0");
    let gateway = GatewayProcess::listening(WorkerProcess::spawn(gateway)).await;

    let call = call.replace("127.0.0.1:7400", &gateway.address.to_string());
    let output = shell.run(&call);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.trim_end(),
        expected.trim_end(),
        "{}",
        gateway.process.log()
    );
    host.remove();
    env.teardown().await;
}
