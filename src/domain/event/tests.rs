use super::*;
use crate::domain::outcome::Entry;
use crate::domain::refusal::RefusalReason;
use crate::domain::request::{Envelope, Violation, decode};

fn request(message_id: Option<&str>) -> RevertRequest {
    let body = br#"{"usage_id":"11111111-1111-4111-8111-111111111111","amount":"5",
        "project_id":"33333333-3333-4333-8333-333333333333","reason":"the job failed"}"#;
    let envelope = Envelope {
        client: "billing".into(),
        message_id: message_id.map(Into::into),
        ..Envelope::default()
    };
    RevertRequest::new(&envelope, decode(body).expect("valid"), false)
}

fn outcome(request: &RevertRequest, verdict: Verdict) -> Outcome {
    Outcome {
        id: request.id,
        org_id: Some(Uuid::from_u128(0x22)),
        account_id: Some(Uuid::from_u128(0x44)),
        decided_at: "2026-11-23T10:20:30.123456Z".parse().expect("a time"),
        verdict,
    }
}

fn shown(event: &Event) -> String {
    let body: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
    format!(
        "{}\n{}",
        event.routing_key,
        serde_json::to_string_pretty(&body).expect("JSON")
    )
}

#[test]
fn the_identity_of_an_outcome_is_that_of_its_event() {
    let request = request(Some("job-1"));
    let entry = Entry {
        transaction_id: Uuid::from_u128(0x55),
        platform_transaction_id: Uuid::from_u128(0x66),
        usage_amount: 20,
        reverted_total: 5,
    };
    for verdict in [
        Verdict::Applied(entry),
        Verdict::Refused(RefusalReason::UsageNotFound.into()),
    ] {
        let outcome = outcome(&request, verdict);
        let event = Event::of_outcome(&request, &outcome);
        let identity = Event::identity(&outcome, request.content);
        assert_eq!(identity, (event.kind, event.id));
    }
}

#[test]
fn a_success_event_has_both_legs_and_the_remainder() {
    let request = request(Some("job-1"));
    let entry = Entry {
        transaction_id: Uuid::from_u128(0x55),
        platform_transaction_id: Uuid::from_u128(0x66),
        usage_amount: i64::MAX,
        reverted_total: 5,
    };
    let event = Event::of_outcome(&request, &outcome(&request, Verdict::Applied(entry)));
    insta::assert_snapshot!("success", shown(&event));
}

#[test]
fn a_refusal_is_a_google_rpc_status() {
    let request = request(None);
    let metadata = Metadata::from([("remaining".into(), "3".into())]);
    let verdict = Verdict::Refused(Refusal::Row(RefusalReason::AmountExceedsUsage, metadata));
    let event = Event::of_outcome(&request, &outcome(&request, verdict));
    insta::assert_snapshot!("refusal", shown(&event));
}

#[test]
fn an_invalid_request_event_lists_all_violations() {
    let violations = vec![Violation {
        field: "amount",
        description: "is required".into(),
    }];
    let fragments = Fragments {
        org_id: Some(Uuid::from_u128(0x22)),
        ..Fragments::default()
    };
    let event = Event::of_invalid(
        Some("m"),
        Uuid::from_u128(1),
        &fragments,
        &Refusal::InvalidField {
            violations,
            index: None,
        },
        Timestamp::UNIX_EPOCH,
    );
    insta::assert_snapshot!("invalid", shown(&event));
}

#[test]
fn an_invalid_request_of_a_group_has_its_index() {
    let event = |index| {
        let violations = vec![Violation {
            field: "amount",
            description: "is required".into(),
        }];
        let refusal = Refusal::InvalidField { violations, index };
        let (id, fragments) = (Uuid::from_u128(1), Fragments::default());
        Event::of_invalid(Some("m/3"), id, &fragments, &refusal, Timestamp::UNIX_EPOCH)
    };
    let (alone, in_group) = (event(None), event(Some(3)));
    let alone_text = String::from_utf8(alone.body).expect("UTF-8");
    let expected = alone_text.replace(r#""metadata":{}"#, r#""metadata":{"index":"3"}"#);
    assert_ne!(alone_text, expected);
    assert_eq!(String::from_utf8(in_group.body).expect("UTF-8"), expected);
    assert_eq!(in_group.id, alone.id);
}

#[test]
fn a_group_refused_event_names_the_first_refusal() {
    let request = request(Some("m/4"));
    let metadata = [
        ("index", "3"),
        ("reason", RefusalReason::UsageNotFound.row().reason),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let refusal = Refusal::of_row(RefusalReason::GroupRefused, metadata.into());
    let event = Event::of_outcome(&request, &outcome(&request, Verdict::Refused(refusal)));
    let shown: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
    let error = &shown["data"]["error"];
    assert_eq!(
        (event.reason, &error["code"]),
        ("GROUP_REFUSED", &10.into())
    );
    let metadata = &error["details"][0]["metadata"];
    let expected = serde_json::json!({"index": "3", "reason": "USAGE_NOT_FOUND"});
    assert_eq!(metadata, &expected);
}

#[test]
fn a_failure_without_an_org_has_key_error_unknown() {
    let event = Event::of_failure(
        None,
        Uuid::from_u128(1),
        &Fragments::default(),
        &Failure::Malformed("the body is not UTF-8".into()),
        Timestamp::UNIX_EPOCH,
    );
    insta::assert_snapshot!("failure", shown(&event));
}

#[test]
fn an_event_id_differs_by_request_content_and_outcome() {
    let one = request(Some("a"));
    let two = request(Some("b"));
    let refused = |request: &RevertRequest, reason: RefusalReason| {
        Event::of_outcome(request, &outcome(request, Verdict::Refused(reason.into()))).id
    };
    let ids = [
        refused(&one, RefusalReason::UsageNotFound),
        refused(&two, RefusalReason::UsageNotFound),
        refused(&one, RefusalReason::NotAUsage),
    ];
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    assert_eq!(ids[0], refused(&one, RefusalReason::UsageNotFound));
}

#[test]
fn a_denial_event_has_only_ids_and_a_denied_key() {
    let request = request(Some("m"));
    for reason in [RefusalReason::ClientUnknown, RefusalReason::OrgNotGranted] {
        let mut denied = outcome(&request, Verdict::Refused(reason.into()));
        (denied.org_id, denied.account_id) = (None, None);
        let event = Event::of_outcome(&request, &denied);
        assert!(event.is_denied());
        let org = request.fields.org_id.as_ref().and_then(Reference::id);
        let key = org.map_or("denied.unknown".into(), |org| format!("denied.{org}"));
        assert_eq!(event.routing_key, key);
        let shown: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
        let data = shown["data"].as_object().expect("an object");
        assert_eq!(data["request_id"], "m");
        assert_eq!(data["usage_id"], request.fields.usage_id.to_string());
        assert!(!data.contains_key("amount") && !data.contains_key("reason"));
    }
}
