//! docs/reference/refusals.md and api/openapi.yaml against the table of refusals.

use std::fmt::Write;

use revertd::domain::refusal::{FailureReason, RefusalReason, Row};
use serde_json::Value;

use crate::support::documents::answers::openapi;

/// The rows of the table in order of precedence, each with its number.
fn rows() -> Vec<(String, &'static Row)> {
    let [first, others @ ..] = FailureReason::ALL else {
        panic!("no failures");
    };
    let refusals = RefusalReason::ALL.iter().map(|reason| reason.row());
    let numbered = std::iter::once(first.row()).chain(refusals);
    let numbered = (1..)
        .zip(numbered)
        .map(|(number, row)| (number.to_string(), row));
    let others = others.iter().map(|reason| ("-".to_owned(), reason.row()));
    numbered.chain(others).collect()
}

/// The table as the page shows it.
pub fn table() -> String {
    let mut text = String::from(
        "| # | reason | code | HTTP | stored | when | message |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (number, row) in rows() {
        let (code, status) = (row.code, row.code.http_status());
        let _ = writeln!(
            text,
            "| {number} | `{}` | {} {} | {status} | {} | {} | {} |",
            row.reason,
            code.number(),
            code.name(),
            if row.is_stored { "yes" } else { "no" },
            row.when,
            row.message,
        );
    }
    text
}

/// Status, code and reason of the errors in openapi.yaml, each combination that it allows.
fn documented() -> Vec<(String, i64, String)> {
    let responses =
        openapi().at("/paths/~1v1beta1~1organizations~1billing~1usages~1revert/post/responses");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (status, response) in responses.as_object().expect("responses") {
        let Some(schema) = response.pointer("/content/application~1json/schema") else {
            continue;
        };
        let schema = &openapi().resolved(schema)["allOf"][1]["properties"];
        for reason in list(&schema["details"]["contains"]["properties"]["reason"]["enum"]) {
            for code in list(&schema["code"]["enum"]) {
                let reason = reason.as_str().expect("a reason").to_owned();
                found.push((status.clone(), code.as_i64().expect("a code"), reason));
            }
        }
    }
    found
}

#[test]
fn openapi_has_each_reason_under_its_status() {
    let documented = documented();
    for (_, row) in rows() {
        let (code, status) = (row.code.number().into(), row.code.http_status());
        let expected = (status.to_string(), code, row.reason.to_owned());
        assert!(documented.contains(&expected), "{expected:?}");
    }
}
