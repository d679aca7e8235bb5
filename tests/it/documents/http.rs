//! openapi.yaml against the gateway: its examples, as they happen, and its schemas.

use serde_json::{Value, json};

use super::{ledger_of_the_examples, timeless};
use crate::support::TestEnv;
use crate::support::documents::answers::{self, complaints, openapi};
use crate::support::documents::asyncapi;
use crate::support::http::{BATCH_PATH, HttpRequest, PATH, PUBLISHER};

fn requests(path: &str) -> &'static Value {
    let operation = openapi().at(&answers::operation(path));
    &operation["requestBody"]["content"]["application/json"]["examples"]
}

/// An answer that the document shows: its name, its status, its body, and the request, if the
/// document has it.
struct Example {
    name: String,
    path: &'static str,
    status: u16,
    answer: Value,
    asked: Option<HttpRequest>,
}

/// Those of single requests first.
fn examples() -> Vec<Example> {
    [PATH, BATCH_PATH]
        .into_iter()
        .flat_map(examples_of)
        .collect()
}

fn examples_of(path: &'static str) -> Vec<Example> {
    let operation = openapi().at(&answers::operation(path));
    let mut examples = Vec::new();
    for (status, response) in operation["responses"].as_object().expect("responses") {
        let shown = response["content"]["application/json"]["examples"].as_object();
        for (name, example) in shown.into_iter().flatten() {
            let plain = requests(path)
                .get(name)
                .map(|request| to(path, request["value"].to_string()));
            let special = example.get("x-request").map(|request| call(path, request));
            examples.push(Example {
                name: name.clone(),
                path,
                status: status.parse().expect("a status"),
                answer: example["value"].clone(),
                asked: plain.or(special),
            });
        }
    }
    examples.sort_by_key(|example| example.status);
    examples
}

fn to(path: &str, body: String) -> HttpRequest {
    HttpRequest {
        path: path.into(),
        ..HttpRequest::post(body)
    }
}

fn call(path: &str, request: &Value) -> HttpRequest {
    let body = match request["spaces"].as_u64() {
        Some(spaces) => " ".repeat(usize::try_from(spaces).expect("few")),
        None => request["body"].as_str().unwrap_or_default().to_owned(),
    };
    let mut call = to(path, body);
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        call = call
            .without(name)
            .header(name, value.as_str().expect("a text"));
    }
    call.method = request["method"].as_str().unwrap_or("POST").into();
    call.path = request["path"].as_str().unwrap_or(path).into();
    call
}

#[tokio::test]
async fn the_examples_of_openapi_yaml_happen() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    env.sql(&ledger_of_the_examples()).await;
    let org = "0a000000-0000-4000-8000-000000000001";
    let granted = env.command(&["grants", "add", PUBLISHER.0, org]).output();
    assert!(granted.expect("runs").status.success());
    let _worker = env.start_worker().await;
    let gateway = env.start_gateway().await;
    let mut asked = 0;
    for example in examples() {
        let Some(call) = &example.asked else {
            continue;
        };
        let reply = gateway.send(call).await;
        let (status, answer) = (reply.status, timeless(&reply.json()));
        let expected = (example.status, timeless(&example.answer));
        assert_eq!((status, answer), expected, "{}", example.name);
        asked += 1;
    }
    let count = |path| requests(path).as_object().expect("examples").len();
    assert!(
        asked > count(PATH) + count(BATCH_PATH),
        "each request is answered"
    );
    env.teardown().await;
}

#[test]
fn schemas_accept_their_examples_and_nothing_else() {
    for Example {
        name,
        path,
        status,
        answer,
        ..
    } in examples()
    {
        let mut headers = Vec::new();
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("X-Request-Id", "x"),
            ("Cache-Control", "no-store"),
            (
                "WWW-Authenticate",
                "Basic realm=\"revertd\", charset=\"UTF-8\"",
            ),
            ("Allow", "POST"),
            ("Retry-After", "1"),
        ] {
            headers.push((name.to_owned(), value.to_owned()));
        }
        let body = answer.to_string();
        let wrong = |status: u16, headers: &[(String, String)], body: &str| {
            !complaints(path, status, headers, Some(body)).is_empty()
        };
        assert_eq!(
            complaints(path, status, &headers, Some(&body)),
            Vec::<String>::new(),
            "{name}"
        );
        let mut more = answer.clone();
        more["more"] = json!(1);
        assert!(wrong(status, &headers, &more.to_string()), "{name}");
        assert!(wrong(418, &headers, &body), "{name}");
        assert!(wrong(status, &headers, ""), "{name}");
        assert!(
            wrong(status, &headers[..1], &body) && wrong(status, &headers[1..], &body),
            "{name}"
        );
        let elsewhere = if status == 409 { 404 } else { 409 };
        assert!(wrong(elsewhere, &headers, &body), "{name}");
    }
}

#[test]
fn openapi_and_asyncapi_define_the_same_request() {
    for name in [
        "RevertRequest",
        "RevertGroup",
        "GroupRequest",
        "GivenUuid",
        "GivenReference",
        "OptionalReference",
        "OptionalUuid",
        "GivenAmount",
        "OptionalReason",
        "WithBillingId",
        "WithOrgId",
        "WithProjectId",
        "ErrorInfo",
    ] {
        let pointer = format!("/components/schemas/{name}");
        assert_eq!(openapi().at(&pointer), asyncapi().at(&pointer));
    }
}
