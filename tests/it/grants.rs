//! Who may ask: grants, and what those learn who have none.

use lapin::options::BasicPublishOptions;
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::ledger::Customer;
use super::support::*;

/// A stage that asks for grants, its worker, and another login than the worker's.
async fn guarded() -> (Stage, WorkerProcess, Publisher) {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    let worker = stage.start_worker().await;
    let client = stage.publisher().await;
    (stage, worker, client)
}

fn grants(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = stage
        .command(&[&["grants"], arguments].concat())
        .env("USER", "alice")
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().expect("no signal"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn grant(stage: &Stage, action: &str, client: &str, org: &str) {
    let (status, _, said) = grants(stage, &[action, client, org]);
    assert_eq!(status, 0, "{said}");
}

fn by(names: &Value, usage: Uuid) -> Request {
    let mut body = names.clone();
    body["usage_id"] = json!(usage);
    body["amount"] = json!(5);
    Request::json(&body).id(&Uuid::new_v4().to_string())
}

async fn ask(events: &mut Mailbox, client: &Publisher, request: &Request) -> Letter {
    client.publish(request.clone()).await;
    events.answer(request).await
}

#[tokio::test]
async fn without_a_grant_nobody_learns_what_there_is() {
    let (stage, mut worker, client) = guarded().await;
    let mut events = stage.events().await;
    let Customer { org, account } = stage.customer().await;
    let (project, usage) = (stage.project(org).await, stage.usage(account, 20).await);
    let empty = stage.org().await;
    let (nobody, nothing) = (Uuid::new_v4(), Uuid::new_v4());
    let mut told = Vec::new();
    for (names, usage) in [
        (json!({"billing_id": account}), usage),
        (json!({"billing_id": account}), nothing),
        (json!({"billing_id": nobody}), usage),
        (json!({"org_id": org}), usage),
        (json!({"org_id": empty}), usage),
        (json!({"org_id": nobody}), nothing),
        (json!({"project_id": project}), usage),
        (json!({"project_id": nobody}), usage),
        (json!({"billing_id": account, "org_id": org}), usage),
        (json!({"billing_id": account, "org_id": nobody}), usage),
        (json!({"billing_id": account, "project_id": project}), usage),
        (json!({"billing_id": ledger::PLATFORM}), usage),
    ] {
        let request = by(&names, usage);
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED", "{names}");
        let shown = event.json();
        // It repeats the ids of the request, and nothing else.
        let data = shown["data"].as_object().expect("an object");
        assert_eq!(data["usage_id"], json!(usage));
        for field in ["org_id", "billing_id"] {
            assert_eq!(data.get(field), names.get(field), "{field} of {names}");
        }
        let key = names["org_id"].as_str().unwrap_or("unknown");
        assert_eq!(event.routing_key, format!("denied.{key}"));
        let mut fields: Vec<_> = data.keys().cloned().collect();
        fields.retain(|field| !["org_id", "billing_id"].contains(&field.as_str()));
        told.push((data["error"].clone(), fields));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the same words for all: {told:?}");
    let (error, _) = &told[0];
    assert_eq!(error["code"], 7);
    assert_eq!(error["details"][0]["metadata"], json!({}));
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("revertd grants add"), "{message}");
    assert!(stage.reverts(usage).await.is_empty());
    let outcomes = "SELECT count(*) FROM revertd.outcomes";
    assert_eq!(stage.count(outcomes).await, 0, "nothing is stored");
    worker.stop().await;
    assert!(
        worker.log().contains("retried=0"),
        "no ladder for a stranger"
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_grant_counts_from_the_next_batch_on_and_so_does_its_end() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    let Customer { org, account } = stage.customer().await;
    let (usage, other) = (
        stage.usage(account, 20).await,
        stage.usage(account, 20).await,
    );
    let request = by(&json!({"billing_id": account}), usage);
    let refused = ask(&mut events, &client, &request).await;
    let again = ask(&mut events, &client, &request).await;
    assert_eq!(refused.verdict(), "ORG_NOT_GRANTED");
    assert_eq!(refused.json()["id"], again.json()["id"]);

    grant(&stage, "add", &client.user, &org.to_string());
    let reverted = ask(&mut events, &client, &request).await;
    assert_eq!(reverted.verdict(), "usage.reverted");

    grant(&stage, "remove", &client.user, &org.to_string());
    let late = by(&json!({"billing_id": account}), other);
    assert_eq!(
        ask(&mut events, &client, &late).await.verdict(),
        "ORG_NOT_GRANTED"
    );
    // What was decided is answered, whatever the grants are by now.
    let replayed = ask(&mut events, &client, &request).await;
    assert_eq!(replayed.body, reverted.body);
    stage.strike().await;
}

#[tokio::test]
async fn a_grant_is_for_one_org() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    let (mine, other) = (stage.customer().await, stage.customer().await);
    grant(&stage, "add", &client.user, &mine.org.to_string());
    let (project, foreign_project) = (
        stage.project(mine.org).await,
        stage.project(other.org).await,
    );
    let foreign = stage.usage(other.account, 20).await;
    let nobody = Uuid::new_v4();
    for names in [
        json!({"billing_id": mine.account}),
        json!({"org_id": mine.org}),
        json!({"project_id": project}),
        json!({"billing_id": mine.account, "org_id": mine.org}),
        json!({"billing_id": mine.account, "project_id": project}),
    ] {
        let usage = stage.usage(mine.account, 20).await;
        let event = ask(&mut events, &client, &by(&names, usage)).await;
        assert_eq!(event.verdict(), "usage.reverted", "{names}");
    }
    for (names, reason) in [
        (json!({"billing_id": other.account}), "ORG_NOT_GRANTED"),
        (json!({"org_id": other.org}), "ORG_NOT_GRANTED"),
        (json!({"project_id": foreign_project}), "ORG_NOT_GRANTED"),
        (json!({"billing_id": nobody}), "ORG_NOT_GRANTED"),
        // Within the org that was granted, what is not there may be told; what is elsewhere looks the same.
        (
            json!({"billing_id": other.account, "org_id": mine.org}),
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (
            json!({"billing_id": nobody, "org_id": mine.org}),
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (json!({"billing_id": mine.account}), "USAGE_NOT_FOUND"),
        (
            json!({"billing_id": mine.account, "org_id": other.org}),
            "ORG_NOT_GRANTED",
        ),
    ] {
        let request = by(&names, foreign).once();
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), reason, "{names}");
    }
    stage.strike().await;
}

#[tokio::test]
async fn a_grant_for_every_org_is_one() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    grant(&stage, "add", &client.user, "*");
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let event = ask(
        &mut events,
        &client,
        &by(&json!({"org_id": customer.org}), usage),
    )
    .await;
    assert_eq!(event.verdict(), "usage.reverted");
    for names in [
        json!({"org_id": Uuid::new_v4()}),
        json!({"billing_id": Uuid::new_v4()}),
    ] {
        let event = ask(&mut events, &client, &by(&names, usage)).await;
        assert_eq!(event.verdict(), "BILLING_ACCOUNT_NOT_FOUND");
    }
    stage.strike().await;
}

#[tokio::test]
async fn nobody_in_particular_may_ask_for_nothing() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let (usage, names) = (
        stage.usage(customer.account, 20).await,
        json!({"billing_id": customer.account}),
    );
    grant(&stage, "add", &client.user, "*");
    let forged = |request: Request| {
        let client = AMQPValue::LongString(client.user.as_str().into());
        request.header("x-client", client)
    };
    for (request, reason) in [
        (by(&names, usage), "CLIENT_UNKNOWN"),
        (forged(by(&names, usage)), "CLIENT_UNKNOWN"),
        (Request::json(&json!({})), "CLIENT_UNKNOWN"),
        (Request::raw("rubbish"), "MALFORMED_REQUEST"),
    ] {
        stage.publish(&request).await;
        let event = events.answer(&request).await;
        assert_eq!(event.verdict(), reason);
        if reason == "CLIENT_UNKNOWN" {
            let error = &event.json()["data"]["error"];
            assert_eq!(error["code"], 16);
            assert!(error["message"].to_string().contains("user_id"), "{error}");
            assert_eq!(event.routing_key, "denied.unknown");
        }
    }
    assert!(stage.reverts(usage).await.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn only_the_worker_may_say_for_whom_it_speaks() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let worker_login = stage.login();
    grant(&stage, "add", &worker_login, "*");
    grant(&stage, "add", "somebody", "*");
    // The client has no grant; those that he claims to be have.
    for claimed in [worker_login.as_str(), "somebody", "*", ""] {
        let request = by(&json!({"billing_id": customer.account}), usage)
            .header("x-client", AMQPValue::LongString(claimed.into()));
        let event = ask(&mut events, &client, &request).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED", "{claimed:?}");
    }
    // The broker itself refuses another login's name.
    let request = by(&json!({"billing_id": customer.account}), usage);
    let properties = request
        .properties
        .with_user_id(worker_login.as_str().into());
    let publishing = client.channel.basic_publish(
        stage.name("requests").as_str().into(),
        "revert".into(),
        BasicPublishOptions::default(),
        &request.body,
        properties,
    );
    let confirmed = publishing.await.expect("written").await;
    assert!(confirmed.is_err(), "{confirmed:?}");
    assert!(stage.reverts(usage).await.is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn two_clients_with_one_message_id_are_two_requests() {
    let (stage, _worker, client) = guarded().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let login = stage.login();
    grant(&stage, "add", &client.user, "*");
    grant(&stage, "add", &login, "*");
    let names = json!({"billing_id": customer.account});
    let (one, other) = (
        by(&names, stage.usage(customer.account, 20).await).id("same"),
        by(&names, stage.usage(customer.account, 20).await).id("same"),
    );
    let first = ask(&mut events, &client, &one).await;
    assert_eq!(first.verdict(), "usage.reverted");
    let properties = other.properties.clone().with_user_id(login.as_str().into());
    let other = Request {
        properties,
        ..other
    };
    stage.publish(&other).await;
    let second = events.answer(&other).await;
    assert_eq!(second.verdict(), "usage.reverted");
    assert_ne!(first.json()["id"], second.json()["id"]);
    stage.strike().await;
}

#[tokio::test]
async fn a_stranger_in_the_batch_takes_nothing_from_its_neighbours() {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    stage.start_worker().await.stop().await;
    let client = stage.publisher().await;
    let login = stage.login();
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    grant(&stage, "add", &login, &customer.org.to_string());
    let names = json!({"billing_id": customer.account});
    let (before, good, after) = (by(&names, usage), by(&names, usage), by(&names, usage));
    let properties = good.properties.clone().with_user_id(login.as_str().into());
    let good = Request { properties, ..good };
    client.publish(before.clone()).await;
    stage.publish(&good).await;
    client.publish(after.clone()).await;
    let _worker = stage.start_worker().await;
    let mut events = stage.events().await;
    assert_eq!(events.answer(&good).await.verdict(), "usage.reverted");
    for stranger in [before, after] {
        let event = events.answer(&stranger).await;
        assert_eq!(event.verdict(), "ORG_NOT_GRANTED");
    }
    assert_eq!(stage.reverts(usage).await.len(), 2);
    stage.strike().await;
}

#[tokio::test]
async fn the_ladder_remembers_the_client() {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    // Long enough on the last rung for a process to start and take the grant back.
    stage.set("RETRY__DELAYS", "100ms,200ms,3s");
    let _worker = stage.start_worker().await;
    let client = stage.publisher().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    grant(&stage, "add", &client.user, &customer.org.to_string());
    let missing = by(&json!({"billing_id": customer.account}), Uuid::new_v4());
    let event = ask(&mut events, &client, &missing).await;
    assert_eq!(event.verdict(), "USAGE_NOT_FOUND", "after three retries");
    let clients = format!(
        "SELECT count(*) FROM revertd.outcomes WHERE client = '{}'",
        client.user
    );
    assert_eq!(stage.count(&clients).await, 1);
    // Taken back while a request waits on its rung, the grant is gone when it returns.
    let waiting = by(&json!({"billing_id": customer.account}), Uuid::new_v4());
    client.publish(waiting.clone()).await;
    eventually("it waits on the last rung", async || {
        stage.depth(&stage.name("retry.3s")).await > 0
    })
    .await;
    grant(&stage, "remove", &client.user, &customer.org.to_string());
    let event = events.answer(&waiting).await;
    assert_eq!(event.verdict(), "ORG_NOT_GRANTED");
    stage.strike().await;
}

#[tokio::test]
async fn an_outcome_from_before_grants_were_asked_for_still_answers() {
    let (mut stage, mut worker) = Stage::with_worker().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let request = by(&json!({"billing_id": customer.account}), usage);
    stage.publish(&request).await;
    let first = events.answer(&request).await;
    worker.stop().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    let _worker = stage.start_worker().await;
    stage.publish(&request).await;
    assert_eq!(events.answer(&request).await.body, first.body);
    stage.strike().await;
}

#[tokio::test]
async fn what_is_refused_before_its_grant_is_looked_at_tells_nothing_either() {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    stage.set("REVERT__POLICY", "cumulative");
    let _worker = stage.start_worker().await;
    let client = stage.publisher().await;
    let mut events = stage.events().await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    for project in [stage.project(customer.org).await, Uuid::new_v4()] {
        let body = json!({"project_id": project, "usage_id": usage, "amount": 5});
        let event = ask(&mut events, &client, &Request::json(&body)).await;
        assert_eq!(event.verdict(), "INVALID_FIELD");
        let data = &event.json()["data"];
        assert_eq!(data.get("org_id").or(data.get("billing_id")), None);
        assert_eq!(event.routing_key, "error.unknown");
    }
    stage.strike().await;
}

#[tokio::test]
async fn the_command_says_what_it_did() {
    let stage = Stage::new().await;
    let customer = stage.customer().await;
    let org = customer.org.to_string();
    assert_eq!(
        grants(&stage, &["list"]),
        (0, "no grants\n".into(), String::new())
    );
    let (status, told, said) = grants(&stage, &["add", "render", &org]);
    assert_eq!((status, said.as_str()), (0, ""));
    assert_eq!(told, format!("render may revert usage of org {org}\n"));
    let (status, told, _) = grants(&stage, &["add", "render", &org, "--by", "bob"]);
    assert_eq!(
        (status, told),
        (0, format!("render already may revert usage of org {org}\n"))
    );
    let (status, told, _) = grants(&stage, &["add", "render", "*", "--output", "json"]);
    assert_eq!((status, told.as_str()), (0, "{\"added\":true}\n"));
    let unknown = Uuid::new_v4().to_string();
    let (status, _, said) = grants(&stage, &["add", "other", &unknown, "--by", "bob"]);
    assert!(status == 0 && said.contains("no such org"), "{said}");

    let (_, told, _) = grants(&stage, &["list"]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert!(
        lines[1].starts_with(&unknown) && lines[1].ends_with("other (bob)"),
        "{told}"
    );
    assert!(
        lines[2].starts_with('*') && lines[2].ends_with("render (alice)"),
        "{told}"
    );
    let (_, told, _) = grants(&stage, &["list", "--client", "render", "--output", "json"]);
    let listed: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(listed[0]["org"], "*");
    assert_eq!(listed[1]["org"], json!(customer.org));
    assert_eq!(listed[1]["granted_by"], "alice");
    assert_eq!(listed[1]["granted_as"], "revertd");
    let (_, told, _) = grants(&stage, &["list", "--org", &org, "--output", "json"]);
    let listed: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{told}");

    let (status, _, said) = grants(&stage, &["remove", "render", &org]);
    assert!(status == 0 && said.contains("every org"), "{said}");
    let (status, told, said) = grants(&stage, &["remove", "render", &org]);
    assert_eq!((status, told.as_str()), (1, ""));
    assert!(said.contains("render has no grant for org"), "{said}");
    for wrong in [
        &["add", "render"][..],
        &["add", "render", "acme"],
        &["add", "render", &org.replace('-', "")],
        &["add", "", &org],
        &["add", &"x".repeat(256), &org],
        &["add", "a\nb", &org],
        &["list", "--org", "*"],
    ] {
        assert_eq!(grants(&stage, wrong).0, 2, "{wrong:?}");
    }
    stage.sql("DROP SCHEMA revertd CASCADE").await;
    let (status, _, said) = grants(&stage, &["list"]);
    assert!(status == 1 && said.contains("revertd migrate"), "{said}");
    stage.strike().await;
}
