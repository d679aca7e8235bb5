//! `revertd dead-letters list`: counts, filters, output and memory.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;
use uuid::Uuid;

use super::setup::*;
use crate::support::dead_letters::DeadLetter;
use crate::support::*;

#[tokio::test]
async fn list_counts_by_reason_and_client_and_filters() {
    let env = env_without_worker().await;
    let (status, stdout, stderr) = dead_letters(&env, &["list"]);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (0, "no letters\n", "")
    );
    let (org, usage, all) = mixed(&env).await;
    let (org, usage) = (org.to_string(), usage.to_string());
    let (status, stdout, stderr) = dead_letters(&env, &["list"]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    let login = env.login();
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("LETTERS  REASON"), "{stdout}");
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
            "{counted}: {stdout}"
        );
    }
    assert_eq!(lines[6], format!("{all} letters"));
    assert_eq!(lines.len(), 6 + 3 + all, "{stdout}");

    let ids = |arguments: &[&str]| -> Vec<String> {
        let found = listed(&env, arguments);
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
    let groups = listed(&env, &["--counts"]);
    let sum: u64 = groups
        .iter()
        .map(|group| group["letters"].as_u64().expect("a number"))
        .sum();
    assert_eq!((groups.len(), sum), (5, all as u64));
    let (_, stdout, _) = dead_letters(&env, &["list", "--limit", "4"]);
    assert!(
        stdout.ends_with("and 2 more: --limit N, or --all\n"),
        "{stdout}"
    );
    // By a letter's own id, or its beginning.
    let five = &listed(&env, &["--id", "five"])[0];
    let id = five["id"].as_str().expect("an id");
    assert_eq!(ids(&["--id", id]), ["five"]);
    assert_eq!(ids(&["--id", &id[..6]]), ["five"]);
    assert_eq!(five["written_by"], "broker");
    eventually("all are back", async || {
        env.depth(&env.name("dead")).await as usize == all
    })
    .await;
    env.teardown().await;
}

#[tokio::test]
async fn a_narrow_terminal_and_a_closed_pipe_are_handled() {
    let env = env_without_worker().await;
    mixed(&env).await;
    let long = DeadLetter::of(b"{}")
        .id(&"i".repeat(200))
        .client(&"c".repeat(100));
    env.put_dead_letters(&[long]).await;
    for arguments in [
        &["list"][..],
        &["show", "two"],
        &["replay", "--all", "--dry-run"],
    ] {
        let output = command(&env, arguments)
            .env("COLUMNS", "40")
            .output()
            .expect("runs");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{stdout}");
        for line in stdout.lines() {
            assert!(line.chars().count() <= 40, "{line:?} of {arguments:?}");
        }
        if arguments[0] == "list" {
            let (one, id) = (
                stdout.matches("RETRIES_EXHAUSTED").count(),
                stdout.matches('i').count(),
            );
            assert!(one == 5 && id >= 200, "all is there: {stdout}");
        }
    }
    let many: Vec<_> = (0..2000).map(|_| DeadLetter::of(&[b'x'; 100])).collect();
    env.put_dead_letters(&many).await;
    for arguments in [&["list", "--all"][..], &["list", "--output", "json"]] {
        let mut command = command(&env, arguments);
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
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    }
    env.teardown().await;
}

/// The most memory that a command used, in KiB, and its output.
fn measured(mut command: std::process::Command) -> (u64, Vec<u8>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
    let status = format!("/proc/{}/status", child.id());
    let mut stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("read");
        bytes
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
async fn memory_does_not_grow_with_the_dead_letter_queue() {
    let count = std::env::var("REVERTD_TEST_LETTERS").ok();
    let count: usize = count.and_then(|count| count.parse().ok()).unwrap_or(3000);
    let env = env_without_worker().await;
    let customer = env.customer().await;
    let queued: Vec<_> = (0..count)
        .map(|_| DeadLetter::new(customer.account, Uuid::new_v4(), 5))
        .collect();
    env.put_dead_letters(&queued[..count / 10]).await;
    let few = measured(command(&env, &["list", "--all"])).0;
    env.put_dead_letters(&queued[count / 10..]).await;
    for arguments in [
        &["list"][..],
        &["list", "--all"],
        &["list", "--output", "json"],
    ] {
        let began = std::time::Instant::now();
        let (most, stdout) = measured(command(&env, arguments));
        println!(
            "{arguments:?} of {count}: {most} KiB, {:?}",
            began.elapsed()
        );
        assert!(
            most < few + few / 2 + 4096,
            "{few} KiB for a tenth, then {most}"
        );
        let stdout = String::from_utf8(stdout).expect("UTF-8");
        let first: Vec<_> = stdout.lines().take(6).collect();
        assert!(
            stdout.contains(&format!("{count} letters\n")) || arguments.len() == 3,
            "{first:?}"
        );
        let lines = stdout.lines().count();
        assert!(lines >= count || arguments.len() == 1, "{lines} {first:?}");
    }
    let began = std::time::Instant::now();
    let (most, stdout) = measured(command(
        &env,
        &["replay", "--all", "--yes", "--output", "json"],
    ));
    println!("replay of {count}: {most} KiB, {:?}", began.elapsed());
    let done: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!(done["replayed"], count);
    assert!(
        most < few + few + 16 * 1024,
        "{few} KiB for a list of a tenth, then {most}"
    );
    assert_eq!(env.depth(&env.name("work")).await as usize, count);
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    env.teardown().await;
}
