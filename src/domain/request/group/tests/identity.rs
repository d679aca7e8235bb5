use proptest::prelude::*;

use super::*;
use crate::domain::request::{Envelope, RevertRequest};

/// Texts with all that JSON escapes.
fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\/ü\u{1f600}\u{202e}]{1,12}"
}

fn account() -> impl Strategy<Value = Value> {
    let uuid = any::<u128>().prop_map(|id| uuid::Uuid::from_u128(id).to_string());
    prop_oneof![
        uuid.clone().prop_map(|id| json!({"billing_id": id})),
        uuid.clone()
            .prop_map(|id| json!({"orgId": id.replace('-', "")})),
        text().prop_map(|name| json!({"org_id": name})),
        (uuid, text()).prop_map(|(id, name)| json!({"billingId": id, "project_id": name})),
    ]
}

proptest! {
    /// Sent alone, or in a group that gives some of the fields: one identity, one content.
    #[test]
    fn a_group_of_one_is_the_single_request(
        account in account(),
        reason in proptest::option::of(text()),
        amount in 1_i64..,
        id in proptest::option::of(text()),
        (account_outside, reason_outside) in any::<(bool, bool)>(),
    ) {
        let mut alone = json!({"usage_id": USAGE, "amount": amount.to_string()});
        let mut element = alone.clone();
        let mut outer = json!({});
        let mut add = |key: &str, value: &Value, outside: bool| {
            alone[key] = value.clone();
            (if outside { &mut outer } else { &mut element })[key] = value.clone();
        };
        for (key, value) in account.as_object().expect("an object") {
            add(key, value, account_outside);
        }
        if let Some(reason) = reason {
            add("reason", &json!(reason), reason_outside);
        }
        if let Some(id) = &id {
            element["request_id"] = json!(id);
        }
        outer["requests"] = json!([element]);
        let body = outer.to_string();
        let member = group(&body).requests.remove(0);

        let with_id = |id: &str| Envelope {
            client: "c".into(),
            message_id: Some(id.into()),
            ..Envelope::default()
        };
        let (envelope, single) = (with_id("m"), with_id(id.as_deref().unwrap_or("m/0")));
        prop_assert_eq!(member.envelope(&envelope), single.clone());
        let fields = decode(alone.to_string().as_bytes()).expect("valid");
        let expected = RevertRequest::new(&single, fields.clone(), false);
        let member_fields = member.fields.clone().expect("valid");
        let found = RevertRequest::under("c", Some(&member.id), member_fields, false);
        prop_assert_eq!(found, expected);
        // The body with which it is sent alone says the same.
        prop_assert_eq!(decode(&member.body()), Ok(fields));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes, Some("m"), &LIMITS);
    }

    /// JSON that is almost a group.
    #[test]
    fn any_members_of_a_group_are_parsed_or_refused(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"requests\"", "\"request_id\"", "\"amount\"", "1",
                "\"atomic\"", "true", "null", "\"\\ud800\"", "\"org_id\"", "\"\"", "\"replies\"",
                "{\"requests\":[", "{\"requests\":[{", "}]}",
            ]),
            0..24,
        ),
    ) {
        let _ = parse(parts.concat().as_bytes(), Some("m"), &LIMITS);
    }
}
