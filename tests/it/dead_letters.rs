//! `revertd dead-letters` as an operator meets it: what is listed, what a replay and a discard do, and what they refuse.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;
use std::process::{Child, Stdio};

use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::letters::Draft;
use super::support::raw::{RawConnection, short};
use super::support::scrape::{LISTEN, Telemetry};
use super::support::*;

/// Runs `revertd dead-letters`, without a terminal.
pub fn letters(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let mut program = stage.command(&[&["dead-letters"], arguments].concat());
    let output = program.env("USER", "alice").output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("no signal");
    (status, text(output.stdout), text(output.stderr))
}

pub fn command(stage: &Stage, arguments: &[&str]) -> std::process::Command {
    let mut command = stage
        .command(&[&["dead-letters"], arguments].concat())
        .bare();
    command.env("USER", "alice");
    command
}

/// Runs it, and reads its JSON; it must succeed.
fn listed(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    let (status, told, said) = letters(stage, &[&["list", "--output", "json"], arguments].concat());
    assert_eq!(status, 0, "{said}");
    let lines = told.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn acted(stage: &Stage, arguments: &[&str]) -> Value {
    let (status, told, said) =
        letters(stage, &[arguments, &["--yes", "--output", "json"]].concat());
    assert_eq!(status, 0, "{arguments:?}: {told}{said}");
    serde_json::from_str(&told).expect("JSON")
}

/// A stage with its queues, and no worker.
pub async fn quiet() -> Stage {
    let stage = Stage::new().await;
    stage.start_worker().await.stop().await;
    stage
}

#[tokio::test]
async fn a_body_that_is_too_large_is_cut_in_its_letter() {
    let (stage, mut worker) = Stage::with_worker().await;
    let mut events = stage.events().await;
    let request = Request::raw(vec![b'x'; 3_000_000]).id("large");
    stage.publish(&request).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "MALFORMED_REQUEST");
    assert!(worker.stop().await.success());
    let letter = stage.peek(&stage.name("dead")).await;
    assert_eq!(letter.body, vec![b'x'; 65_536]);
    let size = lapin::types::AMQPValue::LongLongInt(3_000_000);
    assert_eq!(letter.header("x-body-size"), Some(size));
    let digest = ring::digest::digest(&ring::digest::SHA256, &request.body);
    let mut hexadecimal = String::new();
    for byte in digest.as_ref() {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    assert_eq!(letter.text_header("x-body-sha256"), Some(hexadecimal));
    let listed = &listed(&stage, &[])[0];
    assert_eq!(listed["cut_from_bytes"], 3_000_000);
    let id = listed["id"].as_str().expect("text");
    let (_, shown, _) = letters(&stage, &["show", id]);
    assert!(
        shown.contains("the first 65536 of 3000000 bytes"),
        "{shown}"
    );
    let done = acted(&stage, &["replay", "--all", "--include-malformed"]);
    assert_eq!(done["replayed"], 0, "{done}");
    assert_eq!(stage.depth(&stage.name("dead")).await, 1);
    stage.strike().await;
}

async fn unreadable(stage: &Stage, message_id: &[u8]) {
    let mut raw = RawConnection::open(&stage.servers.amqp).await;
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, message_id);
    let queue = stage.name("dead");
    raw.publish("", queue.as_bytes(), &properties, b"{}").await;
    raw.confirmed().await;
}

/// Letters of every kind; how many there are.
async fn mixed(stage: &Stage) -> (Uuid, Uuid, usize) {
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let body = json!({"orgId": customer.org, "usageId": usage, "amount": "5"});
    stage
        .dead_letter(&[
            Draft::new(customer.account, usage, 5).id("one"),
            Draft::of(body.to_string().as_bytes()).id("two").age(7200),
            Draft::of(b"rubbish")
                .id("three")
                .reason("MALFORMED_REQUEST")
                .client("other"),
        ])
        .await;
    stage.broker_letter("expired", "four", &body, None).await;
    stage
        .broker_letter("delivery_limit", "five", &body, Some(&stage.login()))
        .await;
    unreadable(stage, b"\xff\xfe").await;
    (customer.org, usage, 6)
}

#[tokio::test]
async fn list_counts_by_reason_and_client_and_its_filters_leave_the_others_out() {
    let stage = quiet().await;
    let (status, told, said) = letters(&stage, &["list"]);
    assert_eq!(
        (status, told.as_str(), said.as_str()),
        (0, "no letters\n", "")
    );
    let (org, usage, all) = mixed(&stage).await;
    let (org, usage) = (org.to_string(), usage.to_string());
    let (status, told, said) = letters(&stage, &["list"]);
    assert_eq!((status, said.as_str()), (0, ""), "{told}");
    let login = stage.login();
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("LETTERS  REASON"), "{told}");
    let counts = &lines[1..6];
    for counted in [
        format!("2  {:<17}  render", "RETRIES_EXHAUSTED"),
        format!("1  {:<17}  other", "MALFORMED_REQUEST"),
        format!("1  {:<17}  -", "expired"),
        format!("1  {:<17}  {login}", "delivery_limit"),
        format!("1  {:<17}  -", "unreadable"),
    ] {
        assert!(
            counts.iter().any(|line| line.trim() == counted),
            "{counted}: {told}"
        );
    }
    assert_eq!(lines[6], format!("{all} letters"));
    assert_eq!(lines.len(), 6 + 3 + all, "{told}");

    let ids = |arguments: &[&str]| -> Vec<String> {
        let found = listed(&stage, arguments);
        let id = |letter: &Value| {
            letter["message_id"]
                .as_str()
                .expect("each has one")
                .to_owned()
        };
        found.iter().map(id).collect()
    };
    assert_eq!(
        ids(&[]),
        ["one", "two", "three", "four", "five", "\u{fffd}\u{fffd}"]
    );
    for (filter, fitting) in [
        (&["--reason", "retries_exhausted"][..], &["one", "two"][..]),
        (
            &["--reason", "expired", "--reason", "delivery_limit"],
            &["four", "five"],
        ),
        (&["--reason", "unreadable"], &["\u{fffd}\u{fffd}"]),
        (&["--client", "other"], &["three"]),
        (&["--client", ""], &["four", "\u{fffd}\u{fffd}"]),
        (&["--client", &login], &["five"]),
        (&["--usage", &usage], &["one", "two", "four", "five"]),
        (&["--org", &org], &["two", "four", "five"]),
        (&["--older-than", "1h"], &["two", "four", "five"]),
        (&["--newer-than", "1h"], &["one", "three"]),
        (&["--newer-than", "3h", "--usage", &usage], &["one", "two"]),
        (&["--id", "two"], &["two"]),
        (&["--client", "nobody"], &[]),
        (&["--limit", "2"], &["one", "two"]),
    ] {
        assert_eq!(ids(filter), fitting, "{filter:?}");
    }
    let groups = listed(&stage, &["--counts"]);
    let sum: u64 = groups
        .iter()
        .map(|group| group["letters"].as_u64().expect("a number"))
        .sum();
    assert_eq!((groups.len(), sum), (5, all as u64));
    let (_, told, _) = letters(&stage, &["list", "--limit", "4"]);
    assert!(
        told.ends_with("and 2 more: --limit N, or --all\n"),
        "{told}"
    );
    // By a letter's own id, or its beginning.
    let five = &listed(&stage, &["--id", "five"])[0];
    let id = five["id"].as_str().expect("an id");
    assert_eq!(ids(&["--id", id]), ["five"]);
    assert_eq!(ids(&["--id", &id[..6]]), ["five"]);
    assert_eq!(five["written_by"], "broker");
    eventually("all are back", async || {
        stage.depth(&stage.name("dead")).await as usize == all
    })
    .await;
    stage.strike().await;
}

#[tokio::test]
async fn show_tells_what_is_in_a_letter_and_what_the_ledger_says_now() {
    let (stage, mut worker) = Stage::with_worker().await;
    let (org, usage, _) = mixed(&stage).await;
    let mut events = stage.events().await;
    let reverted =
        Request::json(&json!({"org_id": org, "usage_id": usage, "amount": 5})).id("before");
    stage.publish(&reverted).await;
    let event = events.answer(&reverted).await;
    worker.stop().await;
    let (status, told, said) = letters(&stage, &["show", "two"]);
    assert_eq!(status, 0, "{said}");
    let usage = usage.to_string();
    for line in [
        "reason   RETRIES_EXHAUSTED",
        "error    it broke (code 13)",
        "client   render",
        "attempts 4",
        "header x-kept: \"kept\"",
        "request before of client -: 5 of usage",
        "5 of 20 given back, 15 remain",
        event.json()["id"].as_str().expect("an id"),
        &usage,
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let (_, told, _) = letters(&stage, &["show", "two", "--output", "json"]);
    let shown: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(shown["properties"]["headers"]["x-attempts"], 4);
    assert!(
        shown["body"]
            .as_str()
            .is_some_and(|body| body.contains("orgId"))
    );
    assert_eq!(shown["known"]["outcomes"][0]["request_id"], "before");
    // What can't be read is shown as far as it can.
    let (status, told, said) = letters(&stage, &["show", "\u{fffd}\u{fffd}"]);
    assert_eq!(status, 0, "{said}");
    assert!(
        told.contains("cannot be read") && told.contains("body, 2 bytes"),
        "{told}"
    );
    // One id, two requests; and none.
    let same = [
        Draft::of(b"{}").id("same").client("a"),
        Draft::of(b"{}").id("same").client("b"),
    ];
    stage.dead_letter(&same).await;
    let (status, _, said) = letters(&stage, &["show", "same"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("client a") && said.contains("client b"),
        "{said}"
    );
    let (status, _, said) = letters(&stage, &["show", "none"]);
    assert!(status == 1 && said.contains("dead-letters list"), "{said}");
    // A terminal obeys nothing that a stranger wrote.
    stage
        .dead_letter(&[Draft::of(b"\x1b[2J").id("\x1b[31m")])
        .await;
    let (_, told, _) = letters(&stage, &["show", "\x1b[31m"]);
    assert!(
        !told.contains('\x1b') && told.contains("\\u{1b}[2J"),
        "{told}"
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_replay_is_decided_once_for_its_own_client_and_is_noted() {
    let mut stage = Stage::new().await;
    let mut worker = stage.start_worker().await;
    let (mut events, publisher) = (stage.events().await, stage.publisher().await);
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 666).await;
    let whim = "ALTER TABLE billing_transactions ADD CONSTRAINT whim CHECK (type <> 'credit' OR amount <> 666) NOT VALID";
    stage.sql(whim).await;
    let request = Request::revert(customer.account, usage, 666).id("theirs");
    publisher.publish(request.clone()).await;
    assert_eq!(events.answer(&request).await.verdict(), "RETRIES_EXHAUSTED");
    stage
        .sql("ALTER TABLE billing_transactions DROP CONSTRAINT whim")
        .await;
    worker.stop().await;

    let (status, told, said) = letters(&stage, &["replay", "--all", "--dry-run"]);
    assert_eq!(status, 0, "{said}");
    assert!(told.ends_with("would replay 1 letter\n"), "{told}");
    assert_eq!(stage.depth(&stage.name("work")).await, 0);
    let done = acted(&stage, &["replay", "theirs", "--why", "the rule is gone"]);
    assert_eq!((&done["replayed"], &done["left"]), (&json!(1), &json!({})));
    assert_eq!(stage.depth(&stage.name("dead")).await, 0);
    // As it comes to the worker: of its client, on a new ladder.
    let mut waiting = stage.mailbox(&stage.name("work")).await;
    let letter = waiting.next().await;
    assert_eq!(
        letter.text_header("x-client").as_deref(),
        Some(publisher.user.as_str())
    );
    for header in [
        "x-attempts",
        "x-first-attempt-at",
        "x-error-reason",
        "x-error-code",
        "x-error-message",
    ] {
        assert_eq!(letter.header(header), None, "{header}");
    }
    assert_eq!(letter.body, request.body);
    drop(waiting);
    let replayed = Request {
        body: letter.body,
        properties: letter.properties,
    };
    stage.set(LISTEN.0, LISTEN.1);
    let mut worker = stage.start_worker().await;
    stage.publish(&replayed).await;
    let event = events.answer(&request).await;
    assert_eq!(event.verdict(), "usage.reverted");
    let client = "SELECT count(*) FROM revertd.outcomes WHERE client = 'publisher' AND message_id = 'theirs'";
    assert_eq!(stage.count(client).await, 1);
    // Once more is harmless.
    stage.publish(&replayed).await;
    assert_eq!(events.answer(&request).await.body, event.body);
    let telemetry = Telemetry::of(&mut worker).await;
    for (of, count) in [("dead_letter", 2), ("outcome", 1)] {
        telemetry
            .shows("revertd_replays_total", &[("of", of)], count)
            .await;
    }
    let noted = "SELECT count(*) FROM revertd.interventions i JOIN revertd.intervention_letters l ON l.intervention = i.id
        JOIN revertd.intervention_parts p USING (intervention, part)
        WHERE action = 'replay' AND done_by = 'alice' AND done_as = session_user AND why = 'the rule is gone'
        AND chosen = '{\"ids\": [\"theirs\"]}' AND client = 'publisher' AND message_id = 'theirs'
        AND reason = 'RETRIES_EXHAUSTED'";
    assert_eq!(stage.count(noted).await, 1);
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}

#[tokio::test]
async fn a_replay_takes_what_can_be_a_request_and_leaves_the_rest_in_place() {
    let stage = quiet().await;
    let (_, _, all) = mixed(&stage).await;
    let done = acted(&stage, &["replay", "--all"]);
    assert_eq!(done["replayed"], 4, "{done}");
    assert_eq!(done["left"], json!({"malformed": 1, "unreadable": 1}));
    assert_eq!(stage.depth(&stage.name("work")).await, 4);
    let left: BTreeSet<_> = listed(&stage, &[])
        .iter()
        .map(|letter| letter["reason"].to_string())
        .collect();
    assert_eq!(left.len(), all - 4);
    let done = acted(
        &stage,
        &[
            "replay",
            "--reason",
            "MALFORMED_REQUEST",
            "--include-malformed",
        ],
    );
    assert_eq!(done["replayed"], 1);
    // Of what the broker wrote: an expiry is not passed on, nor why it died.
    for letter in stage.mailbox(&stage.name("work")).await.take(5).await {
        assert_eq!(*letter.properties.expiration(), None);
        assert_eq!(letter.header("x-death"), None);
    }
    // Written by a worker under another login: this one can't say whose it is.
    let publisher = stage.publisher().await;
    let foreign = Request::raw("{}")
        .header(
            "x-error-reason",
            lapin::types::AMQPValue::LongString("RETRIES_EXHAUSTED".into()),
        )
        .header(
            "x-client",
            lapin::types::AMQPValue::LongString("somebody".into()),
        );
    let properties = foreign
        .properties
        .with_user_id(publisher.user.as_str().into());
    let queue = stage.name("dead");
    let publishing = publisher.channel.basic_publish(
        "".into(),
        queue.as_str().into(),
        BasicPublishOptions::default(),
        &foreign.body,
        properties,
    );
    publishing.await.expect("written").await.expect("confirmed");
    let done = acted(&stage, &["replay", "--all"]);
    assert_eq!(
        done["left"],
        json!({"of_another_login": 1, "unreadable": 1})
    );
    assert_eq!(
        (&done["replayed"], &done["intervention"]),
        (&json!(0), &Value::Null)
    );
    stage.strike().await;
}

#[tokio::test]
async fn a_replay_that_the_broker_does_not_take_leaves_the_letters() {
    let stage = quiet().await;
    mixed(&stage).await;
    let work = stage.name("work");
    let deleting = stage
        .channel
        .queue_delete(work.as_str().into(), QueueDeleteOptions::default());
    deleting.await.expect("deleted");
    let (status, told, said) = letters(&stage, &["replay", "--all", "--yes"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("no queue is bound") && told.starts_with("replayed no letters"),
        "{told}{said}"
    );
    eventually("all are back", async || {
        stage.depth(&stage.name("dead")).await == 6
    })
    .await;
    let unfinished = "SELECT count(*) FROM revertd.intervention_letters l WHERE NOT EXISTS (
        SELECT FROM revertd.intervention_parts p WHERE p.intervention = l.intervention AND p.part = l.part)";
    assert_eq!(stage.count(unfinished).await, 4);
    // Nothing is done that can't be noted.
    stage.sql("DROP TABLE revertd.intervention_letters").await;
    stage.start_worker().await.stop().await;
    let (status, _, said) = letters(&stage, &["replay", "--all", "--yes"]);
    assert_eq!((status, stage.depth(&work).await), (1, 0), "{said}");
    stage.strike().await;
}

#[tokio::test]
async fn a_full_work_queue_stops_a_replay() {
    let mut stage = Stage::new().await;
    stage.set("TOPOLOGY__WORK_QUEUE_MAX_BYTES", "1000");
    stage.start_worker().await.stop().await;
    let (customer, work) = (stage.customer().await, stage.name("work"));
    let drafts: Vec<_> = (0..100)
        .map(|_| Draft::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    stage.dead_letter(&drafts).await;
    // Until it says so: it takes a few more than its bound.
    loop {
        let publishing = stage.channel.basic_publish(
            "".into(),
            work.as_str().into(),
            BasicPublishOptions::default(),
            &[b'x'; 500],
            BasicProperties::default(),
        );
        let confirm = publishing.await.expect("written").await;
        if let Confirmation::Nack(_) = confirm.expect("told") {
            break;
        }
    }
    let (status, _, said) = letters(&stage, &["replay", "--all", "--yes"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("is full") && said.contains("--rate"),
        "{said}"
    );
    eventually("all are back", async || {
        stage.depth(&stage.name("dead")).await == 100
    })
    .await;
    stage.strike().await;
}

#[tokio::test]
async fn discard_says_why_saves_and_removes_what_nobody_can_read() {
    let stage = quiet().await;
    let (_, _, all) = mixed(&stage).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("letters.ndjson");
    let path = file.to_str().expect("UTF-8");
    let (status, _, said) = letters(&stage, &["discard", "--all", "--yes"]);
    assert!(status == 2 && said.contains("--why"), "{said}");
    let (status, _, _) = letters(&stage, &["discard", "--all", "--yes", "--why", " "]);
    assert_eq!(status, 2);
    let rubbish = [
        "discard",
        "--reason",
        "unreadable",
        "--reason",
        "MALFORMED_REQUEST",
        "--why",
        "rubbish",
    ];
    let done = acted(
        &stage,
        &[&rubbish[..], &["--by", "bob", "--save", path]].concat(),
    );
    assert_eq!(done["discarded"], 2);
    assert_eq!(listed(&stage, &[]).len(), all - 2);
    let saved = std::fs::read_to_string(&file).expect("saved");
    let saved: Vec<Value> = saved
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(saved[0]["body_base64"], "cnViYmlzaA==");
    assert_eq!(
        saved[1]["header_base64"], "AIAC//4=",
        "flags, and the message id"
    );
    let noted = "SELECT count(*) FROM revertd.interventions i JOIN revertd.intervention_letters l ON l.intervention = i.id
        WHERE action = 'discard' AND done_by = 'bob' AND why = 'rubbish' AND saved_to IS NOT NULL";
    assert_eq!(stage.count(noted).await, 2);
    // A file that is there is not touched, and then nothing is thrown away.
    let (status, _, said) = letters(
        &stage,
        &["discard", "--all", "--why", "x", "--yes", "--save", path],
    );
    assert!(status == 1 && said.contains("name a new one"), "{said}");
    assert_eq!(listed(&stage, &[]).len(), all - 2);
    let done = acted(&stage, &["discard", "--all", "--why", "x"]);
    assert_eq!(done["discarded"], all - 2);
    assert_eq!(listed(&stage, &[]).len(), 0);
    stage.strike().await;
}

#[tokio::test]
async fn without_a_terminal_nothing_is_done_unless_told_so_and_wrong_usage_says_how() {
    let stage = quiet().await;
    mixed(&stage).await;
    for arguments in [
        &["replay", "--all"][..],
        &["discard", "--all", "--why", "x"],
        &["replay", "one"],
    ] {
        let (status, told, said) = letters(&stage, arguments);
        assert_eq!((status, told.as_str()), (2, ""), "{said}");
        assert!(said.contains("--yes"), "{said}");
    }
    let (status, _, said) = letters(&stage, &["replay", "--yes"]);
    assert!(status == 2 && said.contains("--all"), "{said}");
    for wrong in [
        &["list", "--reason", "nonsense"][..],
        &["list", "--colour", "red"],
        &["list", "--older-than", "soon"],
        &["list", "--org", "acme"],
        &["list", "--limit", "1", "--all"],
        &["show"],
        &["show", ""],
        &["replay", "--all", "one", "--yes"],
        &["replay", "--all", "--rate", "0"],
    ] {
        let (status, _, said) = letters(&stage, wrong);
        assert_eq!(status, 2, "{wrong:?}");
        assert!(said.contains("--help"), "{said}");
    }
    // A person who says yes, and one who does not.
    for (answer, status, left) in [("n", 1, 6), ("y", 0, 2)] {
        let program = program::binary();
        let line = format!("{} dead-letters replay --all", program.display());
        let mut command = std::process::Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs(stage.environment());
        command
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("USER", "alice");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, format!("{answer}\n").as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ends");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert!(told.contains("replay 4 letters?"), "{told}");
        eventually("the rest is back", async || {
            stage.depth(&stage.name("dead")).await == left
        })
        .await;
        drop(input);
    }
    stage.strike().await;
}

#[tokio::test]
async fn a_narrow_screen_and_a_reader_who_leaves_are_served() {
    let stage = quiet().await;
    mixed(&stage).await;
    let long = Draft::of(b"{}")
        .id(&"i".repeat(200))
        .client(&"c".repeat(100));
    stage.dead_letter(&[long]).await;
    for arguments in [
        &["list"][..],
        &["show", "two"],
        &["replay", "--all", "--dry-run"],
    ] {
        let output = command(&stage, arguments)
            .env("COLUMNS", "40")
            .output()
            .expect("runs");
        let told = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{told}");
        for line in told.lines() {
            assert!(line.chars().count() <= 40, "{line:?} of {arguments:?}");
        }
        if arguments[0] == "list" {
            let (one, id) = (
                told.matches("RETRIES_EXHAUSTED").count(),
                told.matches('i').count(),
            );
            assert!(one == 5 && id >= 200, "all is there: {told}");
        }
    }
    let many: Vec<_> = (0..2000).map(|_| Draft::of(&[b'x'; 100])).collect();
    stage.dead_letter(&many).await;
    for arguments in [&["list", "--all"][..], &["list", "--output", "json"]] {
        let mut command = command(&stage, arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut first = [0; 10];
        child
            .stdout
            .take()
            .expect("piped")
            .read_exact(&mut first)
            .expect("read");
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    stage.strike().await;
}

/// Starts a slow replay of `count` letters, and waits until the first is a request again.
async fn under_way(stage: &Stage, count: usize, stderr: Stdio) -> Child {
    let customer = stage.customer().await;
    let drafts: Vec<_> = (0..count)
        .map(|_| Draft::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    stage.dead_letter(&drafts).await;
    let mut command = command(
        stage,
        &[
            "replay", "--all", "--yes", "--rate", "1", "--output", "json",
        ],
    );
    let child = command
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("runs");
    eventually("the first is replayed", async || {
        stage.depth(&stage.name("work")).await > 0
    })
    .await;
    child
}

#[tokio::test]
async fn what_arrives_while_a_replay_goes_on_is_for_the_next_one() {
    let stage = quiet().await;
    let child = under_way(&stage, 3, Stdio::piped()).await;
    stage.dead_letter(&[Draft::of(b"{}").id("late")]).await;
    let output = child.wait_with_output().expect("ends");
    let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&done["replayed"], &done["interrupted"]),
        (&json!(3), &json!(false))
    );
    let left = listed(&stage, &[]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["message_id"], "late");
    stage.strike().await;
}

#[tokio::test]
async fn an_interrupt_ends_a_replay_after_what_is_in_hand() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    // Also where nobody can be told of it.
    for stderr in [Stdio::piped(), full.expect("opens").into()] {
        interrupted(stderr).await;
    }
}

async fn interrupted(stderr: Stdio) {
    let stage = quiet().await;
    let child = under_way(&stage, 20, stderr).await;
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.expect("kill is there").success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(done["interrupted"], true);
    let replayed = done["replayed"].as_u64().expect("a number");
    assert!((1..20).contains(&replayed), "{done}");
    assert_eq!(u64::from(stage.depth(&stage.name("work")).await), replayed);
    assert_eq!(listed(&stage, &[]).len() as u64, 20 - replayed);
    stage.strike().await;
}

/// The most memory that a command used, in KiB, and what it printed.
fn measured(mut command: std::process::Command) -> (u64, Vec<u8>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
    let status = format!("/proc/{}/status", child.id());
    let mut stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        stdout.read_to_end(&mut told).expect("read");
        told
    });
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(number.unwrap_or(0));
        std::thread::yield_now();
    }
    assert!(child.wait().expect("a child").success());
    (most, reader.join().expect("it only reads"))
}

/// `REVERTD_TEST_LETTERS=100000` makes a large queue of it.
#[tokio::test]
async fn memory_does_not_grow_with_the_queue() {
    let count = std::env::var("REVERTD_TEST_LETTERS").ok();
    let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(3000);
    let stage = quiet().await;
    let customer = stage.customer().await;
    let drafts: Vec<_> = (0..count)
        .map(|_| Draft::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    stage.dead_letter(&drafts[..count / 10]).await;
    let few = measured(command(&stage, &["list", "--all"])).0;
    stage.dead_letter(&drafts[count / 10..]).await;
    for arguments in [
        &["list"][..],
        &["list", "--all"],
        &["list", "--output", "json"],
    ] {
        let began = std::time::Instant::now();
        let (most, told) = measured(command(&stage, arguments));
        println!(
            "{arguments:?} of {count}: {most} KiB, {:?}",
            began.elapsed()
        );
        assert!(
            most < few + few / 2 + 4096,
            "{few} KiB for a tenth, then {most}"
        );
        let told = String::from_utf8(told).expect("UTF-8");
        let first: Vec<_> = told.lines().take(6).collect();
        assert!(
            told.contains(&format!("{count} letters\n")) || arguments.len() == 3,
            "{first:?}"
        );
        let lines = told.lines().count();
        assert!(lines >= count || arguments.len() == 1, "{lines} {first:?}");
    }
    let began = std::time::Instant::now();
    let (most, told) = measured(command(
        &stage,
        &["replay", "--all", "--yes", "--output", "json"],
    ));
    println!("replay of {count}: {most} KiB, {:?}", began.elapsed());
    let done: Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!(done["replayed"], count);
    assert!(
        most < few + few + 16 * 1024,
        "{few} KiB for a list of a tenth, then {most}"
    );
    assert_eq!(stage.depth(&stage.name("work")).await as usize, count);
    assert_eq!(stage.depth(&stage.name("dead")).await, 0);
    stage.strike().await;
}
