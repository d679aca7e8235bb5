//! The expected event and the two expected legs of an answer.

use serde_json::{Value, json};

use super::initial_ledger::InitialLedger;
use super::ledger::PLATFORM;
use super::model::{Answer, Revert, ValidRequest, Verdict};
use super::observed::Leg;

/// The two legs of a revert, as Frontier writes them.
pub fn expected_legs(
    ledger: &InitialLedger,
    asked: &ValidRequest,
    answer: &Answer,
    revert: &Revert,
) -> Option<[Leg; 2]> {
    let usage = ledger.postings.get(&asked.content.usage)?;
    let mut metadata = match &usage.metadata {
        Value::Object(map) => map.clone(),
        _ => serde_json::Map::new(),
    };
    metadata.remove("revert_reason");
    metadata.insert("revert_request_using".into(), json!(asked.content.usage));
    if let Some(reason) = &asked.content.reason {
        metadata.insert("revert_reason".into(), json!(reason));
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let customer = Leg {
        id: revert.entry,
        account: Some(usage.account),
        kind: Some("credit".into()),
        source: Some(format!("system.revert.{}", text(&usage.source))),
        amount: asked.content.amount,
        description: Some(format!("Revert: {}", text(&usage.description))),
        metadata: metadata.into(),
        user: usage.user.clone(),
        at: answer.at.clone(),
    };
    let platform = Leg {
        id: revert.platform_entry,
        account: Some(PLATFORM),
        kind: Some("debit".into()),
        ..customer.clone()
    };
    Some([customer, platform])
}

/// The event of an answer, without its id and the error's message, and its routing key.
pub fn expected_event(asked: &ValidRequest, answer: &Answer) -> (Value, String) {
    let content = &asked.content;
    let (org, account) = (
        answer.org.or(content.org),
        answer.account.or(content.billing),
    );
    let mut data = json!({"usage_id": content.usage, "amount": content.amount.to_string()});
    for (key, value) in [
        ("request_id", asked.message_id.clone()),
        ("org_id", org.map(|id| id.to_string())),
        ("billing_id", account.map(|id| id.to_string())),
        ("reason", content.reason.clone()),
    ] {
        if let Some(value) = value {
            data[key] = value.into();
        }
    }
    let (kind, prefix) = match &answer.verdict {
        Verdict::Applied(revert) => {
            let total = revert.before + content.amount;
            data["transaction_id"] = json!(revert.entry);
            data["platform_transaction_id"] = json!(revert.platform_entry);
            data["usage_amount"] = revert.usage_amount.to_string().into();
            data["reverted_total"] = total.to_string().into();
            data["remaining"] = (revert.usage_amount - total).to_string().into();
            ("usage.reverted", "result")
        }
        Verdict::Refused { reason, metadata } => {
            let mut details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason, "domain": "revertd", "metadata": metadata,
            })];
            if reason == "INVALID_FIELD" {
                details.push(json!({"@type": "type.googleapis.com/google.rpc.BadRequest"}));
            }
            data["error"] = json!({"code": code(reason), "details": details});
            ("usage.revert.rejected", "error")
        }
    };
    let event = json!({
        "specversion": "1.0", "source": "revertd", "type": kind, "subject": content.usage,
        "time": answer.at, "datacontenttype": "application/json", "data": data,
    });
    let key = org.map_or("unknown".into(), |org| org.to_string());
    (event, format!("{prefix}.{key}"))
}

/// The contract's table.
fn code(reason: &str) -> i32 {
    match reason {
        "BILLING_ACCOUNT_NOT_FOUND" | "USAGE_NOT_FOUND" => 5,
        "REVERT_OF_REVERT" | "NOT_A_USAGE" | "REVERT_WINDOW_CLOSED" => 9,
        "ALREADY_REVERTED" => 6,
        "GROUP_REFUSED" => 10,
        "INVALID_FIELD" | "REQUEST_ID_REUSED" | "AMOUNT_EXCEEDS_USAGE" => 3,
        other => panic!("{other} has no code here"),
    }
}
