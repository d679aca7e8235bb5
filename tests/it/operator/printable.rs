//! Text of strangers cannot control a terminal, reverse a line or hide in it: not in output, not in
//! files, not in logs.

use revertd::common::printable::is_printable;
use serde_json::Value;

use crate::support::dead_letters::DeadLetter;
use crate::support::*;

/// Controls (C0, DEL, C1), soft hyphen, Arabic letter mark, zero width, bidirectional, line
/// separator, tag.
const SILENT: &str =
    "a\u{7}\u{1b}[2J\u{7f}\u{9b}31m\u{ad}\u{61c}\u{200b}\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}z";

/// The same without control characters, which no argument may have.
const HIDDEN: &str = "a\u{ad}\u{61c}\u{200b}\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}z";

fn prints(text: &str) {
    let silent = text.chars().find(|c| *c != '\n' && !is_printable(*c));
    assert_eq!(silent, None, "{text:?}");
}

#[tokio::test]
async fn unprintable_characters_are_escaped_in_output() {
    let env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("letters");
    let saved = file.to_str().expect("UTF-8");
    let letter = DeadLetter::of(format!("{{\"reason\": \"{SILENT}\"}}").as_bytes());
    let letter = letter.id(SILENT).client(SILENT).reason(SILENT);
    env.put_dead_letters(&[letter]).await;
    let discard = ["dead-letters", "discard", "--all", "--yes", "--why", "x"];
    let discard = [&discard[..], &["--save", saved]].concat();
    for arguments in [
        &["dead-letters", "list"][..],
        &["dead-letters", "list", "--output", "json"],
        &["dead-letters", "list", "--counts", "--output", "json"],
        &["dead-letters", "show", SILENT],
        &["dead-letters", "show", SILENT, "--output", "json"],
        &["dead-letters", "show", "\u{202e}nobody"],
        &["status", "--request", SILENT],
        &["status", "--request", SILENT, "--output", "json"],
        &["grants", "add", HIDDEN, "*"],
        &["grants", "list"],
        &["grants", "list", "--output", "json"],
        &["pause", "--why", HIDDEN],
        &["pause", "--why", HIDDEN, "--output", "json"],
        &discard,
    ] {
        let output = env.command(arguments).output().expect("runs");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(!out.is_empty() || !err.is_empty(), "{arguments:?}");
        prints(&out);
        prints(&err);
    }
    let saved = std::fs::read_to_string(&file).expect("written");
    prints(&saved);
    let letter: Value = serde_json::from_str(&saved).expect("an object");
    assert_eq!(letter["client"], SILENT);
    assert_eq!(letter["message_id"], SILENT);
    env.teardown().await;
}

#[tokio::test]
async fn unprintable_characters_are_escaped_in_logs() {
    for format in ["json", "text"] {
        let mut env = TestEnv::new().await;
        env.set("TELEMETRY__LOG_FORMAT", format);
        let mut worker = env.spawn_worker();
        worker.logged("ready").await;
        env.publish(&Request::raw("{").id(SILENT)).await;
        worker.logged("dead-lettered").await;
        let why = ["pause", "--why", HIDDEN];
        assert!(env.command(&why).output().expect("runs").status.success());
        worker.logged("an operator").await;
        worker.stop().await;
        let log = worker.log();
        prints(&log);
        if format == "json" {
            let lines = log.lines().map(|line| -> Value {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            });
            let lines: Vec<_> = lines.collect();
            assert!(lines.iter().any(|line| line["message_id"] == SILENT));
            assert!(lines.iter().any(|line| line["why"] == HIDDEN));
        }
        env.teardown().await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
