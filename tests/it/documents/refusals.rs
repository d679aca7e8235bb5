//! docs/reference/refusals.md against the program: reasons, codes, HTTP statuses, words, and whether they are stored.

use std::collections::BTreeMap;

use revertd::domain::outcome::{Failure, Metadata, Refusal};
use serde_json::Value;

use super::pages;
use crate::support::documents::answers::openapi;

/// The rows of the table, a cell each: number, reason, code, HTTP status, stored, when, words.
fn rows() -> Vec<Vec<String>> {
    let page = pages::text("docs/reference/refusals.md");
    let table = pages::between(&page, "<!-- refusals -->\n", "<!-- /refusals -->");
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    table.lines().skip(2).map(cells).collect()
}

/// A code as the table spells it.
fn code(number: i32) -> String {
    let name = match number {
        3 => "INVALID_ARGUMENT",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        9 => "FAILED_PRECONDITION",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        16 => "UNAUTHENTICATED",
        other => panic!("no name of google.rpc.Code for {other}"),
    };
    format!("{number} {name}")
}

/// The HTTP statuses of a reason and a code, by openapi.yaml; what a test sees is checked against that.
fn statuses() -> BTreeMap<(String, i64), Vec<String>> {
    let responses =
        openapi().at("/paths/~1v1beta1~1organizations~1billing~1usages~1revert/post/responses");
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for (status, response) in responses.as_object().expect("responses") {
        let Some(schema) = response.pointer("/content/application~1json/schema") else {
            continue;
        };
        let schema = &openapi().resolved(schema)["allOf"][1]["properties"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let reasons = &schema["details"]["contains"]["properties"]["reason"]["enum"];
        for reason in list(reasons) {
            for code in list(&schema["code"]["enum"]) {
                let reason = reason.as_str().expect("a reason").to_owned();
                let code = code.as_i64().expect("a code");
                found
                    .entry((reason, code))
                    .or_default()
                    .push(status.clone());
            }
        }
    }
    found
}

/// The refusals that the statement does not store.
fn not_stored() -> Vec<String> {
    let statement = include_str!("../../../src/ledger/apply/apply.sql");
    let list = pages::between(statement, "AND d.verdict NOT IN (", ")");
    list.split('\'')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Number, reason, code and words of each row, by the program. The words of failures differ from case to case.
fn expected() -> Vec<(String, String, i32, Option<String>)> {
    let malformed = Failure::Malformed(String::new()).code();
    let mut rows = vec![(
        "1".to_owned(),
        malformed.reason.to_owned(),
        malformed.number,
        None,
    )];
    for (row, reason) in (2..).zip(Refusal::REASONS) {
        let refusal = Refusal::from_reason(reason, Metadata::new()).expect("a refusal");
        let words = Some(refusal.message().to_owned());
        rows.push((
            row.to_string(),
            reason.to_owned(),
            refusal.code().number,
            words,
        ));
    }
    for failure in [
        Failure::RetriesExhausted(String::new()),
        Failure::Unavailable(String::new()),
    ] {
        let code = failure.code();
        rows.push(("-".to_owned(), code.reason.to_owned(), code.number, None));
    }
    rows
}

#[test]
fn the_table_of_refusals_is_that_of_the_program() {
    let (rows, expected) = (rows(), expected());
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    let (statuses, not_stored) = (statuses(), not_stored());
    for (row, (number, reason, by_code, words)) in rows.iter().zip(expected) {
        assert_eq!((&row[0], &row[1]), (&number, &reason));
        assert_eq!(row[2], code(by_code), "code of {reason}");
        let statuses = &statuses[&(reason.clone(), i64::from(by_code))];
        assert!(
            statuses.contains(&row[3]),
            "HTTP status of {reason}: {statuses:?}"
        );
        let refused = words.is_some();
        let stored = refused && !not_stored.contains(&reason);
        assert_eq!(
            row[4],
            if stored { "yes" } else { "no" },
            "whether {reason} is stored"
        );
        if let Some(words) = words {
            assert_eq!(row[6], words, "words of {reason}");
        }
    }
}
