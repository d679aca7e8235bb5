//! `revertd submit --file`: invalid files, and results that cannot be written.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::setup::{counts, entries, objects, submit, summary};
use crate::support::*;

/// A worker, an account, and a file of that name and content in a folder of its own.
struct Table {
    env: TestEnv,
    _worker: WorkerProcess,
    account: Uuid,
    usages: Vec<Uuid>,
    folder: TempDir,
}

impl Table {
    async fn new(usages: usize) -> Self {
        let (env, worker) = TestEnv::with_worker().await;
        let account = env.customer().await.account;
        let mut made = Vec::with_capacity(usages);
        for _ in 0..usages {
            made.push(env.usage(account, 20).await);
        }
        Self {
            env,
            _worker: worker,
            account,
            usages: made,
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// A row of CSV for each usage.
    fn rows(&self, end: &str) -> String {
        let account = self.account;
        let row = |usage: &Uuid| format!("{usage},5,{account}{end}");
        self.usages.iter().map(row).collect()
    }
}

#[tokio::test]
async fn the_message_id_of_a_line_is_its_request_id() {
    let table = Table::new(1).await;
    let (usage, account) = (table.usages[0], table.account);
    // Half an emoji, a number beyond every float, and more nesting than a parser follows.
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    for note in [
        r#""cut \ud83d""#.to_owned(),
        "1e999".to_owned(),
        format!("{open}{close}"),
    ] {
        let line = format!(
            r#"{{"note":{note},"message_id":"mine","usage_id":"{usage}","amount":5,"billing_id":"{account}"}}"#
        );
        let (status, stdout, stderr) = submit(&table.env, &table.file("f.ndjson", &line), &[]);
        assert_eq!(status, 0, "{stdout}{stderr}");
    }
    let own = "SELECT count(*) FROM revertd.outcomes WHERE message_id = 'mine'";
    assert_eq!(table.env.count(own).await, 1);
    assert_eq!(entries(&table.env).await, 2);
    for id in [
        r#""message_id":"a","messageId":"b""#,
        r#""message_id":"a","message_id":"a""#,
        r#""message_id":7"#,
    ] {
        let line = format!(r#"{{{id},"usage_id":"{usage}","amount":5,"billing_id":"{account}"}}"#);
        let (status, _, stderr) = submit(&table.env, &table.file("g.ndjson", &line), &[]);
        assert!(
            status == 1 && stderr.contains("line 1: message_id must be a string"),
            "{stderr}"
        );
    }
    table.env.teardown().await;
}

#[tokio::test]
async fn one_id_for_two_requests_is_refused() {
    let table = Table::new(3).await;
    let account = table.account;
    let line = |id: &str, usage: usize| {
        json!({"message_id": id, "usage_id": table.usages[usage],
        "amount": 5, "billing_id": account})
    };
    let text = format!("{}\n{}\n{}\n", line("d", 0), line("d", 1), line("e", 2));
    let file = table.file("f.ndjson", &text);
    let (status, _, stderr) = submit(&table.env, &file, &[]);
    assert!(
        status == 1
            && stderr.contains("line 2: has the id of line 1, and other content")
            && stderr.contains("nothing was sent"),
        "{stderr}"
    );
    assert_eq!(entries(&table.env).await, 0);
    let skip = ["--skip-invalid", "--output", "json"];
    let (status, stdout, _) = submit(&table.env, &file, &skip);
    let expected = counts(&[("INVALID_LINE", 1), ("usage.reverted", 2)]);
    assert_eq!((status, summary(&stdout)), (1, expected.clone()));
    let (status, stdout, _) = submit(&table.env, &file, &[&skip[..], &["--dry-run"]].concat());
    assert_eq!((status, summary(&stdout)), (1, expected));
    table.env.teardown().await;
}

#[tokio::test]
async fn a_malformed_csv_file_sends_nothing() {
    let table = Table::new(9).await;
    let rows = table.rows("\n");
    let header = "usage_id,amount,billing_id\n";
    let mut lines: Vec<_> = rows.lines().map(ToOwned::to_owned).collect();
    lines[2] = format!("\"{}", lines[2]);
    let open = format!("{header}{}\n", lines.join("\n"));
    let endless = format!("{header}\"{}\n", rows.repeat(300));
    for (text, why) in [
        (rows.as_str(), "has no column usage_id in its first line"),
        (
            &json!({"usage_id": table.usages[0]}).to_string(),
            "use --format ndjson",
        ),
        (&open, "line 4: a field contains a line break"),
        (&endless, "line 2: a field contains a line break"),
        (
            "usage_id,amount,billing_id,amount\n",
            "two columns named amount",
        ),
    ] {
        let file = table.file("f.csv", text);
        let (status, stdout, stderr) = submit(&table.env, &file, &["--skip-invalid"]);
        assert!(
            status == 1 && stderr.contains(why),
            "{why}: {stdout}{stderr}"
        );
        assert_eq!(stdout, "");
    }
    assert_eq!(entries(&table.env).await, 0);
    // Lines may end in any of three ways.
    for (end, first) in [("\r", 0), ("\r\n", 3), ("\n", 6)] {
        let rows: Vec<_> = table.usages[first..first + 3].to_vec();
        let row = |usage: &Uuid| format!("{usage},5,{}{end}", table.account);
        let text =
            format!("usage_id,amount,billing_id{end}") + &rows.iter().map(row).collect::<String>();
        let (status, stdout, stderr) = submit(&table.env, &table.file("g.csv", &text), &[]);
        assert!(
            status == 0 && stdout.starts_with("3 requests\n"),
            "{stdout}{stderr}"
        );
    }
    let (status, stdout, stderr) = submit(&table.env, &table.file("h.csv", header), &[]);
    assert!(
        status == 0 && stdout == "0 requests\n" && stderr.contains("contains no requests"),
        "{stdout}{stderr}"
    );
    table.env.teardown().await;
}

#[tokio::test]
async fn the_file_of_remaining_requests_is_all_or_nothing() {
    let table = Table::new(0).await;
    let unknown: Vec<_> = (0..60)
        .map(|_| format!("{},5,{}\n", Uuid::new_v4(), table.account))
        .collect();
    let unknown = unknown.concat();
    let file = table.file("f.csv", &format!("usage_id,amount,billing_id\n{unknown}"));
    let left = table.file("left.ndjson", "of yesterday\n");
    let path = left.to_str().expect("UTF-8");
    // The broker is not there: nothing was sent, and nothing is known better than yesterday.
    let name = file.to_str().expect("UTF-8");
    let output = table
        .env
        .command(&["submit", "--file", name, "--failed", path])
        .env("REVERTD_AMQP__URL", "amqp://127.0.0.1:1")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let kept = || fs::read_to_string(&left).expect("there");
    assert_eq!(kept(), "of yesterday\n");
    // Standard output cannot be written: requests in flight are finished, and the remaining ones
    // are in the file.
    let output = table
        .env
        .command(&[
            "submit",
            "--file",
            name,
            "--max-attempts",
            "1",
            "--window",
            "10",
            "--failed",
            path,
        ])
        .bare()
        .stdout(
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("opens"),
        )
        .stderr(Stdio::piped())
        .output()
        .expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && stderr.contains("No space left"),
        "{stderr}"
    );
    assert_eq!(objects(&kept()).len(), 60, "{stderr}");
    // The file can't be written. The number of sent requests is still printed.
    let (status, stdout, stderr) = submit(&table.env, &file, &["--failed", "/dev/full"]);
    assert!(
        status == 1 && stdout.contains("60 requests\n") && stderr.contains("No space left"),
        "{stdout}{stderr}"
    );
    // Nothing else is left behind.
    let names = fs::read_dir(table.folder.path()).expect("a folder").count();
    assert_eq!(names, 2, "the file, and what is left of it");
    // Another name of the file itself.
    let link = table.folder.path().join("link.csv");
    fs::hard_link(&file, &link).expect("linked");
    submit(
        &table.env,
        &file,
        &["--failed", link.to_str().expect("UTF-8")],
    );
    let now = fs::read_to_string(&file).expect("there");
    assert!(now.ends_with(&unknown), "{now}");
    table.env.teardown().await;
}
