use serde_json::{Value, json};

use super::*;
use crate::common::check::CheckStatus::{Error, Warning};
use crate::common::check::{Check, CheckStatus};

fn sound() -> Value {
    json!({"name": "q", "type": "quorum", "durable": true, "auto_delete": false, "exclusive": false,
        "members": ["a", "b", "c"], "online": ["a", "b", "c"], "effective_policy_definition": [],
        "arguments": {"x-queue-type": "quorum", "x-max-length-bytes": 1_i64 << 30,
            "x-overflow": "reject-publish",
            "x-delivery-limit": 1_000_000_000, "x-dead-letter-exchange": "dead",
                "x-dead-letter-routing-key": "dead",
            "x-dead-letter-strategy": "at-least-once"}})
}

fn judged(role: QueueRole, answer: &Value, version: &str) -> Vec<(CheckStatus, String)> {
    let told = told(role, answer, version).into_iter();
    told.map(|check| (check.status, check.seen)).collect()
}

fn told(role: QueueRole, answer: &Value, version: &str) -> Vec<Check> {
    let settings = Settings::load_from(None, []).expect("the defaults are valid");
    let mut checks = Checks::default();
    let queue = QueueInfo {
        name: "q",
        role,
        answer,
    };
    queue.check("queue", &BrokerInfo::of(version), &settings, &mut checks);
    let of_queue = checks.iter().filter(|check| check.id == "queue");
    of_queue.cloned().collect()
}

#[test]
fn each_queue_setting_that_loses_requests_is_found() {
    assert_eq!(
        judged(QueueRole::Work, &sound(), "4.0.5")[0].0,
        CheckStatus::Ok
    );
    for (path, value, status, said) in [
        ("/type", json!("classic"), Error, "type classic"),
        ("/durable", json!(false), Error, "restart"),
        ("/auto_delete", json!(true), Error, "who consumes it"),
        ("/online", json!(["a"]), Error, "1 of the 3 members"),
        ("/online", json!(["a", "b"]), Warning, "2 of the 3 members"),
        (
            "/arguments/x-dead-letter-exchange",
            json!(null),
            Error,
            "no dead-letter exchange",
        ),
        (
            "/arguments/x-dead-letter-strategy",
            json!(null),
            Error,
            "at-most-once",
        ),
        (
            "/arguments/x-overflow",
            json!("drop-head"),
            Error,
            "overflow drop-head",
        ),
        (
            "/effective_policy_definition",
            json!({"overflow": "drop-head", "max-length": 3}),
            Error,
            "overflow drop-head by a policy",
        ),
        (
            "/effective_policy_definition",
            json!({"overflow": "reject-publish"}),
            CheckStatus::Ok,
            "loses nothing",
        ),
        (
            "/arguments/x-delivery-limit",
            json!(20),
            Error,
            "after 20 deliveries",
        ),
        (
            "/arguments/x-delivery-limit",
            json!(null),
            Error,
            "after 20 deliveries",
        ),
        (
            "/arguments/x-max-length-bytes",
            json!(null),
            Warning,
            "no bound",
        ),
        (
            "/effective_policy_definition",
            json!({"delivery-limit": 3}),
            Error,
            "after 3 deliveries",
        ),
        (
            "/effective_policy_definition",
            json!({"message-ttl": 9}),
            Warning,
            "older than 9 ms",
        ),
        (
            "/effective_policy_definition",
            json!({"expires": 9}),
            Error,
            "when it is unused",
        ),
    ] {
        let mut answer = sound();
        *answer.pointer_mut(path).expect(path) = value;
        let found = judged(QueueRole::Work, &answer, "4.0.5");
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(
            found[0].0 == status && found[0].1.contains(said),
            "{path}: {found:?}"
        );
    }
    // Without a limit of its own, a queue of 3.x has none.
    let mut answer = sound();
    *answer
        .pointer_mut("/arguments/x-delivery-limit")
        .expect("there") = json!(null);
    assert_eq!(
        judged(QueueRole::Work, &answer, "3.13.7")[0].0,
        CheckStatus::Ok
    );
}

#[test]
fn rungs_must_expire_and_dead_letters_must_stay() {
    let rung = QueueRole::Rung { delay_ms: 5000 };
    let mut answer = sound();
    answer["arguments"]["x-dead-letter-exchange"] = json!("");
    answer["arguments"]["x-dead-letter-routing-key"] = json!("usage.reverts");
    answer["arguments"]["x-message-ttl"] = json!(5000);
    assert_eq!(judged(rung, &answer, "")[0].0, CheckStatus::Ok);
    answer["effective_policy_definition"] = json!({"message-ttl": 100});
    assert!(
        judged(rung, &answer, "")[0]
            .1
            .contains("for 100 ms, not for 5000 ms")
    );
    answer["arguments"]["x-dead-letter-routing-key"] = json!("elsewhere");
    assert!(
        judged(rung, &answer, "")[0]
            .1
            .contains("does not lead back")
    );
    answer["arguments"]["x-delivery-limit"] = json!(1_000_000_000);
    assert!(
        judged(QueueRole::Dead, &answer, "")[0]
            .1
            .contains("older than 100 ms")
    );
    assert_eq!(judged(QueueRole::Dead, &answer, "")[0].0, Error);
    assert_eq!(judged(QueueRole::Replies, &answer, "")[0].0, Warning);
    let mut answer = sound();
    answer["arguments"]["x-delivery-limit"] = json!(50);
    assert!(
        judged(QueueRole::Dead, &answer, "")[0]
            .1
            .contains("looked at 50 times")
    );
}

#[test]
fn a_too_short_consumer_timeout_is_reported() {
    let settings = Settings::load_from(None, []).expect("the defaults are valid");
    for (timeout, status) in [(60_000, Warning), (1_800_000, CheckStatus::Ok)] {
        let (mut answer, mut checks) = (sound(), Checks::default());
        answer["arguments"]["x-consumer-timeout"] = json!(timeout);
        let queue = QueueInfo {
            name: "q",
            role: QueueRole::Work,
            answer: &answer,
        };
        queue.check("queue", &BrokerInfo::of(""), &settings, &mut checks);
        let found = checks
            .iter()
            .find(|check| check.id == "amqp-consumer-timeout");
        assert_eq!(found.expect("told").status, status);
    }
}

#[test]
fn the_remedy_removes_a_bad_key_from_the_policy() {
    let rung = QueueRole::Rung { delay_ms: 5000 };
    let mut led_back = sound();
    led_back["arguments"]["x-dead-letter-exchange"] = json!("");
    led_back["arguments"]["x-dead-letter-routing-key"] = json!("usage.reverts");
    led_back["arguments"]["x-message-ttl"] = json!(5000);
    for (role, lacks, policy) in [
        (QueueRole::Work, "", json!({"overflow": "drop-head"})),
        (rung, "", json!({"overflow": "drop-head"})),
        (
            QueueRole::Dead,
            "",
            json!({"overflow": "reject-publish-dlx"}),
        ),
        (rung, "", json!({"message-ttl": 100})),
        (QueueRole::Dead, "", json!({"message-ttl": 100})),
        (QueueRole::Work, "", json!({"expires": 100})),
        (
            rung,
            "x-dead-letter-routing-key",
            json!({"dead-letter-routing-key": "elsewhere"}),
        ),
        (
            QueueRole::Work,
            "x-dead-letter-strategy",
            json!({"dead-letter-strategy": "at-most-once"}),
        ),
    ] {
        let mut answer = if role == rung {
            led_back.clone()
        } else {
            sound()
        };
        answer["arguments"]["x-delivery-limit"] = json!(1_000_000);
        if !lacks.is_empty() {
            answer["arguments"][lacks] = json!(null);
        }
        answer["effective_policy_definition"] = policy;
        let found = told(role, &answer, "4.0.5");
        assert_eq!((found.len(), found[0].status), (1, Error), "{found:?}");
        let remedy = found[0].remedy.as_deref().expect("there is one");
        assert!(remedy.contains("out of the policy"), "{found:?}");
        // The same by its own arguments, which can't be changed.
        let policy = answer["effective_policy_definition"].take();
        for (key, value) in policy.as_object().expect("an object") {
            answer["arguments"][format!("x-{key}")] = value.clone();
        }
        let found = told(role, &answer, "4.0.5");
        let remedy = found[0].remedy.as_deref().expect("there is one");
        assert!(remedy.contains("delete the queue"), "{found:?}");
    }
    // It is there again once the policy is gone.
    let mut answer = sound();
    answer["arguments"]["x-overflow"] = json!("drop-head");
    answer["arguments"]["x-delivery-limit"] = json!(50);
    answer["effective_policy_definition"] = json!({"overflow": "reject-publish"});
    assert_eq!(judged(QueueRole::Dead, &answer, "3.13.7").len(), 2);
    // What drops its oldest on purpose does not claim to lose nothing.
    answer["arguments"]["x-delivery-limit"] = json!(1_000_000);
    let found = judged(QueueRole::Replies, &answer, "3.13.7");
    assert!(
        found[0].0 == CheckStatus::Ok && !found[0].1.contains("loses nothing"),
        "{found:?}"
    );
}
