//! An event in one line.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::terminal::visible;

/// One line for people.
#[must_use]
pub fn summary(event: &Value) -> String {
    let data = &event["data"];
    // A client chooses ids and metadata, so they may contain control characters.
    let text = |value: &Value| visible(value.as_str().unwrap_or("?")).into_owned();
    let (kind, request) = (text(&event["type"]), text(&data["request_id"]));
    let Some(error) = data.get("error") else {
        return format!(
            "{kind}: {} of {} given back, {} remain (request {request}, transaction {})",
            text(&data["amount"]),
            text(&data["usage_amount"]),
            text(&data["remaining"]),
            text(&data["transaction_id"]),
        );
    };
    let info = &error["details"][0];
    let mut line = format!(
        "{kind}: {}: {}",
        text(&info["reason"]),
        text(&error["message"])
    );
    for (key, value) in info["metadata"].as_object().into_iter().flatten() {
        let _ = write!(line, ", {key} {}", text(value));
    }
    for violation in error["details"][1]["fieldViolations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let (field, description) = (text(&violation["field"]), text(&violation["description"]));
        let _ = write!(line, "; {field} {description}");
    }
    format!("{line} (request {request})")
}
