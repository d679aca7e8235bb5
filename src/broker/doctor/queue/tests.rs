use serde_json::json;

use super::*;
use crate::check::Status;

fn sound() -> Value {
    json!({"name": "q", "type": "quorum", "durable": true, "auto_delete": false, "exclusive": false,
        "members": ["a", "b", "c"], "online": ["a", "b", "c"], "effective_policy_definition": [],
        "arguments": {"x-queue-type": "quorum", "x-max-length-bytes": 1_i64 << 30, "x-overflow": "reject-publish",
            "x-delivery-limit": 50, "x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "dead",
            "x-dead-letter-strategy": "at-least-once"}})
}

fn judged(role: Role, answer: &Value, version: &str) -> Vec<(Status, String)> {
    let settings = Settings::load_from(None, []).expect("the defaults are valid");
    let mut checks = Checks::default();
    let queue = Queue {
        name: "q",
        role,
        answer,
    };
    queue.check("queue", &Broker::of(version), &settings, &mut checks);
    let of_queue = checks.iter().filter(|check| check.id == "queue");
    of_queue
        .map(|check| (check.status, check.seen.clone()))
        .collect()
}

#[test]
fn each_way_to_lose_a_request_is_found() {
    assert_eq!(judged(Role::Work, &sound(), "4.0.5")[0].0, Status::Ok);
    for (path, value, status, said) in [
        ("/type", json!("classic"), Status::Error, "type classic"),
        ("/durable", json!(false), Status::Error, "restart"),
        (
            "/auto_delete",
            json!(true),
            Status::Error,
            "who consumes it",
        ),
        ("/online", json!(["a"]), Status::Error, "1 of the 3 members"),
        (
            "/online",
            json!(["a", "b"]),
            Status::Warning,
            "2 of the 3 members",
        ),
        (
            "/arguments/x-dead-letter-exchange",
            json!(null),
            Status::Error,
            "no dead-letter exchange",
        ),
        (
            "/arguments/x-dead-letter-strategy",
            json!(null),
            Status::Error,
            "at-most-once",
        ),
        (
            "/arguments/x-overflow",
            json!("drop-head"),
            Status::Error,
            "overflow drop-head",
        ),
        (
            "/arguments/x-delivery-limit",
            json!(20),
            Status::Error,
            "after 20 deliveries",
        ),
        (
            "/arguments/x-delivery-limit",
            json!(null),
            Status::Error,
            "after 20 deliveries",
        ),
        (
            "/arguments/x-max-length-bytes",
            json!(null),
            Status::Warning,
            "no bound",
        ),
        (
            "/effective_policy_definition",
            json!({"delivery-limit": 3}),
            Status::Error,
            "after 3 deliveries",
        ),
        (
            "/effective_policy_definition",
            json!({"message-ttl": 9}),
            Status::Warning,
            "older than 9 ms",
        ),
        (
            "/effective_policy_definition",
            json!({"expires": 9}),
            Status::Error,
            "deleted when nobody",
        ),
    ] {
        let mut answer = sound();
        *answer.pointer_mut(path).expect(path) = value;
        let found = judged(Role::Work, &answer, "4.0.5");
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
    assert_eq!(judged(Role::Work, &answer, "3.13.7")[0].0, Status::Ok);
}

#[test]
fn rungs_lead_back_after_their_delay_and_letters_stay() {
    let rung = Role::Rung { delay_ms: 5000 };
    let mut answer = sound();
    answer["arguments"]["x-dead-letter-exchange"] = json!("");
    answer["arguments"]["x-dead-letter-routing-key"] = json!("usage.reverts");
    answer["arguments"]["x-message-ttl"] = json!(5000);
    assert_eq!(judged(rung, &answer, "")[0].0, Status::Ok);
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
        judged(Role::Dead, &answer, "")[0]
            .1
            .contains("older than 100 ms")
    );
    assert_eq!(judged(Role::Dead, &answer, "")[0].0, Status::Error);
    assert_eq!(judged(Role::Replies, &answer, "")[0].0, Status::Warning);
    assert!(
        judged(Role::Dead, &sound(), "")[0]
            .1
            .contains("looked at 50 times")
    );
}

#[test]
fn a_consumer_timeout_that_is_too_short_is_told() {
    let settings = Settings::load_from(None, []).expect("the defaults are valid");
    for (timeout, status) in [(60_000, Status::Warning), (1_800_000, Status::Ok)] {
        let (mut answer, mut checks) = (sound(), Checks::default());
        answer["arguments"]["x-consumer-timeout"] = json!(timeout);
        let queue = Queue {
            name: "q",
            role: Role::Work,
            answer: &answer,
        };
        queue.check("queue", &Broker::of(""), &settings, &mut checks);
        let found = checks
            .iter()
            .find(|check| check.id == "amqp-consumer-timeout");
        assert_eq!(found.expect("told").status, status);
    }
}
