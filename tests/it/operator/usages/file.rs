//! The file of `revertd usages`, and what `revertd submit --file` makes of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::super::submit_file::setup::{counts, entries, submit, summary};
use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn an_incident_is_reverted_once_however_often_run() {
    let (env, _worker) = TestEnv::with_worker().await;
    let ledger::Customer { org, account } = env.customer().await;
    for minutes in 0..3 {
        entry(
            &env,
            account,
            ("debit", 20, minutes),
            None,
            &json!({"job": "render-7"}),
        )
        .await;
    }
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let org = org.to_string();
    let write = |name: &str| {
        let file = path(name);
        let arguments = [
            "--org",
            &org,
            "--metadata",
            "job=render-7",
            "--batch",
            "incident-7",
        ];
        let more = ["--reason", "job \u{fc} failed \u{200b}", "--file", &file];
        let (status, stdout, stderr) = told(&env, &[&arguments[..], &more].concat());
        assert_eq!(status, 0, "{stderr}");
        (
            stdout,
            stderr,
            std::fs::read_to_string(&file).expect("written"),
        )
    };
    let (stdout, stderr, first) = write("first.ndjson");
    assert!(
        stdout.starts_with("3 usages of 1 account, 60 in all, written from "),
        "{stdout}"
    );
    let next = format!(
        "next: revertd submit --file {} --dry-run\n",
        path("first.ndjson")
    );
    assert!(stderr.ends_with(&next), "{stderr}");
    assert_eq!(write("second.ndjson").2, first, "the same in every run");

    let file = folder.path().join("first.ndjson");
    let three = counts(&[("usage.reverted", 3)]);
    for (arguments, entries_after) in [(&["--dry-run"][..], 0), (&[], 6), (&[], 6)] {
        let arguments = [arguments, &["--output", "json"]].concat();
        let (status, stdout, stderr) = submit(&env, &file, &arguments);
        assert_eq!((status, summary(&stdout)), (0, three.clone()), "{stderr}");
        assert_eq!(entries(&env).await, entries_after);
    }
    let reasons = "SELECT count(*) FROM revertd.outcomes \
        WHERE reason = 'job \u{fc} failed \u{200b}' AND message_id = 'incident-7-' || usage_id";
    assert_eq!(env.count(reasons).await, 3);

    // Nothing is left: the file is empty, and is no error.
    let (stdout, _, third) = write("third.ndjson");
    assert_eq!(
        (stdout.as_str(), third.as_str()),
        ("0 usages of 0 accounts, 0 in all\n", "")
    );
    let (status, _, stderr) = submit(&env, &folder.path().join("third.ndjson"), &[]);
    assert!(
        status == 0 && stderr.contains("contains no requests"),
        "{stderr}"
    );
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .collect();
    assert_eq!(names.len(), 3, "no temporary file is left");
    let mode = names
        .remove(0)
        .expect("an entry")
        .metadata()
        .expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o077, 0, "only its owner can read it");
    env.teardown().await;
}

/// Both files ask for all that remained when they were written.
#[tokio::test]
async fn two_files_of_a_usage_do_not_revert_it_twice() {
    for stale_first in [true, false] {
        let (env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
        let account = env.customer().await.account;
        let usage = env.usage(account, 20).await;
        let folder = TempDir::new().expect("a folder");
        let write = |name: &str| {
            let file = folder.path().join(name);
            let path = file.to_str().expect("UTF-8");
            let arguments = ["--account", &account.to_string(), "--file", path];
            assert_eq!(told(&env, &arguments).0, 0);
            file
        };
        let stale = write("stale.ndjson");
        env.frontier_revert(&usage.to_string(), account, &usage.to_string(), 5)
            .await;
        let fresh = write("fresh.ndjson");
        let mut order = [(&stale, "AMOUNT_EXCEEDS_USAGE"), (&fresh, "usage.reverted")];
        if !stale_first {
            order.reverse();
        }
        // Twice each.
        for (file, verdict) in [order, order].concat() {
            let (_, stdout, stderr) = submit(&env, file, &["--output", "json"]);
            assert_eq!(summary(&stdout), counts(&[(verdict, 1)]), "{stderr}");
        }
        let reverted = format!(
            "SELECT sum(amount)::bigint FROM billing_transactions WHERE account_id = '{account}' \
             AND type = 'credit'"
        );
        assert_eq!(env.count(&reverted).await, 20);
        assert!(of_account(&env, account).is_empty());
        env.teardown().await;
    }
}

#[tokio::test]
async fn an_interrupt_leaves_no_file() {
    let env = TestEnv::new().await;
    let account = env.customer().await.account.to_string();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("requests.ndjson").display().to_string();
    let lock = connect_db(&with_database(&env.servers.database, &env.database)).await;
    lock.batch_execute("BEGIN; LOCK TABLE billing_transactions IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("locked");
    let arguments = ["usages", "--account", &account, "--file", &file];
    let mut command = env.command(&arguments).bare();
    let child = command.stderr(Stdio::piped()).spawn().expect("starts");
    eventually("it waits for the lock", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        env.count(waiting).await == 1
    })
    .await;
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1
    );
    let kill = ["-INT", &child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(kill)
            .status()
            .expect("kill is there")
            .success()
    );
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("revertd: interrupted; {file} was not written\n");
    assert_eq!((output.status.code(), stderr), (Some(1), expected));
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
    drop(lock);
    env.teardown().await;
}

/// The program is measured while it waits for its reader, who has not read the last requests yet.
#[tokio::test]
async fn memory_does_not_grow_with_the_usages() {
    const ALL: usize = 100_000;
    let env = TestEnv::new().await;
    let account = env.customer().await.account;
    env.sql(&format!(
        "INSERT INTO billing_transactions (id, account_id, type, amount) \
         SELECT gen_random_uuid(), '{account}', 'debit', 20 FROM generate_series(1, {ALL}); \
         ANALYZE billing_transactions"
    ))
    .await;
    let mut command = env
        .command(&["usages", "--account", &account.to_string()])
        .bare();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let before = lines.by_ref().take(ALL - 10_000);
    let mut seen: Vec<Uuid> = before.map(|line| usage_of(&line.expect("UTF-8"))).collect();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.expect("it runs");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most
        .expect("a line")
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>();
    seen.extend(lines.map(|line| usage_of(&line.expect("UTF-8"))));
    assert!(child.wait().expect("ends").success());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), ALL, "each once");
    let most = most.expect("a number");
    println!("{ALL} usages: {most} KiB");
    assert!(most < 40 * 1024, "{most} KiB");
    env.teardown().await;
}

fn usage_of(line: &str) -> Uuid {
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    line["usage_id"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a UUID")
}
