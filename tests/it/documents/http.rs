//! openapi.yaml against the gateway: its examples, as they happen, and its schemas.

use serde_json::{Value, json};

use super::{ledger_of_the_examples, timeless};
use crate::support::TestEnv;
use crate::support::documents::answers::{complaints, openapi};
use crate::support::documents::asyncapi;
use crate::support::http::{HttpRequest, PATH, PUBLISHER};

fn operation() -> &'static Value {
    openapi().at("/paths/~1v1beta1~1organizations~1billing~1usages~1revert/post")
}

/// An answer that the document shows: its name, its status, its body, and the request, if the
/// document has it.
struct Example {
    name: String,
    status: u16,
    answer: Value,
    asked: Option<HttpRequest>,
}

fn examples() -> Vec<Example> {
    let requests = &operation()["requestBody"]["content"]["application/json"]["examples"];
    let mut examples = Vec::new();
    for (status, response) in operation()["responses"].as_object().expect("responses") {
        let shown = response["content"]["application/json"]["examples"].as_object();
        for (name, example) in shown.into_iter().flatten() {
            let plain = requests
                .get(name)
                .map(|request| HttpRequest::post(request["value"].to_string()));
            let special = example.get("x-request").map(call);
            examples.push(Example {
                name: name.clone(),
                status: status.parse().expect("a status"),
                answer: example["value"].clone(),
                asked: plain.or(special),
            });
        }
    }
    examples.sort_by_key(|example| example.status);
    examples
}

fn call(request: &Value) -> HttpRequest {
    let mut call = match request["spaces"].as_u64() {
        Some(spaces) => HttpRequest::post(" ".repeat(usize::try_from(spaces).expect("few"))),
        None => HttpRequest::post(request["body"].as_str().unwrap_or_default()),
    };
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        call = call
            .without(name)
            .header(name, value.as_str().expect("a text"));
    }
    call.method = request["method"].as_str().unwrap_or("POST").into();
    call.path = request["path"].as_str().unwrap_or(PATH).into();
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
    let requests = &operation()["requestBody"]["content"]["application/json"]["examples"];
    assert!(
        asked > requests.as_object().expect("examples").len(),
        "each request is answered"
    );
    env.teardown().await;
}

#[test]
fn schemas_accept_their_examples_and_nothing_else() {
    for Example {
        name,
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
            !complaints(status, headers, Some(body)).is_empty()
        };
        assert_eq!(
            complaints(status, &headers, Some(&body)),
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
