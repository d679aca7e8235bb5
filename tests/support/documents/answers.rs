//! Checks answers of the gateway against openapi.yaml.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Document;

static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::read("api/openapi.yaml"));

/// openapi.yaml, read once.
pub fn openapi() -> &'static Document {
    &OPENAPI
}

/// The operation of that path, in the document.
pub fn operation(path: &str) -> String {
    format!("/paths/{}/post", path.replace('/', "~1"))
}

/// Checks an answer of the operation of that path; `body` is none where the request was one that is
/// answered without.
pub fn check(path: &str, status: u16, headers: &[(String, String)], body: Option<&str>) {
    let complaints = complaints(path, status, headers, body);
    assert!(
        complaints.is_empty(),
        "not as openapi.yaml says: {complaints:#?}\n{status} {headers:?}\n{body:?}"
    );
}

/// What of an answer is not as openapi.yaml says.
pub fn complaints(
    path: &str,
    status: u16,
    headers: &[(String, String)],
    body: Option<&str>,
) -> Vec<String> {
    let of_http = body == Some("") && !headers.iter().any(|(name, _)| is(name, "content-type"));
    if status == 100 || of_http && [400, 431].contains(&status) {
        return Vec::new(); // of HTTP itself, before there is a request
    }
    let response = format!("{}/responses/{status}", operation(path));
    if openapi().text.pointer(&response).is_none() {
        return vec![format!("there is no answer {status}")];
    }
    let mut complaints = of_headers(&response, headers);
    let Some(body) = body else {
        return complaints;
    };
    if !headers
        .iter()
        .any(|(name, value)| is(name, "content-type") && value == "application/json")
    {
        complaints.push("the Content-Type is not application/json".into());
    }
    match serde_json::from_str::<Value>(body) {
        Ok(body) => {
            let schema = format!("{response}/content/application~1json/schema");
            complaints.extend(openapi().complaints(&schema, &body));
        }
        Err(wrong) => complaints.push(format!("the body is not JSON: {wrong}")),
    }
    complaints
}

fn of_headers(response: &str, given: &[(String, String)]) -> Vec<String> {
    let documented = openapi().at(response)["headers"].as_object();
    let mut complaints = Vec::new();
    for (name, header) in documented.into_iter().flatten() {
        let pointer = header["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        let pointer = pointer.expect("each refers to a component");
        let mut values = given.iter().filter(|(other, _)| is(other, name));
        match (values.next(), openapi().at(pointer)["required"] == true) {
            (None, true) => complaints.push(format!("the header {name} is missing")),
            (None, false) => {}
            (Some((_, value)), _) => {
                let schema = format!("{pointer}/schema");
                complaints.extend(openapi().complaints(&schema, &json!(value)));
            }
        }
        if values.next().is_some() {
            complaints.push(format!("the header {name} comes twice"));
        }
    }
    complaints
}

fn is(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
