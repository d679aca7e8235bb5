use std::fs;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::lines::Format;
use super::super::looked::look_through;
use super::*;

fn grouping(size: usize, max_bytes: usize) -> Grouping {
    Grouping {
        size,
        max_bytes,
        is_atomic: true,
        window: 1,
        batch: "b".into(),
    }
}

fn line(id: &str) -> Value {
    json!({"message_id": id, "usage_id": Uuid::nil(), "amount": 5, "org_id": "acme"})
}

/// The groups of a file with lines of these ids.
fn groups(ids: &[&str], grouping: &Grouping) -> Vec<LineGroup> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("f");
    let lines: Vec<_> = ids.iter().map(|id| line(id).to_string()).collect();
    fs::write(&path, lines.join("\n")).expect("written");
    let source = RequestSource {
        path,
        format: Format::Ndjson,
        batch: "b".into(),
        line_max_bytes: 1024,
    };
    let looked = look_through(&source).expect("read");
    let mut groups = Groups::new(&source, &looked, grouping).expect("read");
    let mut all = Vec::new();
    while let Some(group) = groups.next().expect("read") {
        all.push(group);
    }
    all
}

/// The numbers of the lines that are sent, and of the others, group by group.
fn numbers(groups: &[LineGroup]) -> Vec<(Vec<u64>, Vec<u64>)> {
    let of = |lines: &[RequestLine]| lines.iter().map(|line| line.number).collect();
    let both = |group: &LineGroup| (of(&group.requests), of(&group.repeated));
    groups.iter().map(both).collect()
}

#[test]
fn a_repeated_id_is_sent_once_in_a_group() {
    let groups = groups(&["a", "b", "a", "c", "a"], &grouping(3, 1024));
    assert_eq!(
        numbers(&groups),
        [(vec![1, 2, 4], vec![3]), (vec![5], vec![])]
    );
    let message = groups[0].submission(Some(1));
    let body: Value = serde_json::from_slice(&message.body).expect("JSON");
    let ids: Vec<_> = (0..3)
        .map(|at| &body["requests"][at]["request_id"])
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(body["atomic"], true);
    assert_eq!(body["requests"][0]["amount"], "5");
    assert_eq!(
        (message.correlation_id, message.max_attempts),
        ("1".into(), Some(1))
    );
}

#[test]
fn the_id_of_a_group_follows_from_its_lines() {
    let id = |ids: &[&str]| {
        groups(ids, &grouping(3, 1024))[0]
            .submission(None)
            .message_id
    };
    assert_eq!(id(&["a", "b"]), id(&["a", "b", "a"]));
    assert!(id(&["a", "b"]).starts_with("b-group-"));
    assert_ne!(id(&["a", "b"]), id(&["b", "a"]));
    let alone = &groups(&["a", "b"], &grouping(1, 1024))[1].submission(None);
    assert_eq!(alone.message_id, "b");
    let body: Value = serde_json::from_slice(&alone.body).expect("JSON");
    assert_eq!(body["org_id"], "acme");
}

#[test]
fn a_group_has_at_most_max_group_bytes() {
    let ids = ["a", "b", "c"];
    let whole = groups(&ids, &grouping(3, 1024))[0]
        .submission(None)
        .body
        .len();
    for (max_bytes, sizes) in [(whole, &[3][..]), (whole - 1, &[2, 1]), (1, &[1, 1, 1])] {
        let groups = groups(&ids, &grouping(3, max_bytes));
        let found: Vec<_> = groups.iter().map(|group| group.requests.len()).collect();
        assert_eq!(found, sizes, "{max_bytes}");
    }
}
