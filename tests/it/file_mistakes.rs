//! `revertd submit --file`: files that are not what they seem, and results that can't be written.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::files::{counts, entries, objects, submit, summary};
use super::support::*;

/// A worker, an account, and a file of that name and content in a folder of its own.
struct Table {
    stage: Stage,
    _worker: WorkerProcess,
    account: Uuid,
    usages: Vec<Uuid>,
    folder: TempDir,
}

impl Table {
    async fn new(usages: usize) -> Self {
        let (stage, worker) = Stage::with_worker().await;
        let account = stage.customer().await.account;
        let mut made = Vec::with_capacity(usages);
        for _ in 0..usages {
            made.push(stage.usage(account, 20).await);
        }
        Self {
            stage,
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
async fn a_lines_own_id_counts_whatever_else_the_line_says() {
    let table = Table::new(1).await;
    let (usage, account) = (table.usages[0], table.account);
    // What a cut emoji leaves behind, a number beyond every float, and more nesting than a parser follows.
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    for note in [
        r#""cut \ud83d""#.to_owned(),
        "1e999".to_owned(),
        format!("{open}{close}"),
    ] {
        let line = format!(
            r#"{{"note":{note},"message_id":"mine","usage_id":"{usage}","amount":5,"billing_id":"{account}"}}"#
        );
        let (status, told, said) = submit(&table.stage, &table.file("f.ndjson", &line), &[]);
        assert_eq!(status, 0, "{told}{said}");
    }
    let own = "SELECT count(*) FROM revertd.outcomes WHERE message_id = 'mine'";
    assert_eq!(table.stage.count(own).await, 1);
    assert_eq!(entries(&table.stage).await, 2);
    for id in [
        r#""message_id":"a","messageId":"b""#,
        r#""message_id":"a","message_id":"a""#,
        r#""message_id":7"#,
    ] {
        let line = format!(r#"{{{id},"usage_id":"{usage}","amount":5,"billing_id":"{account}"}}"#);
        let (status, _, said) = submit(&table.stage, &table.file("g.ndjson", &line), &[]);
        assert!(
            status == 1 && said.contains("line 1: message_id must be a text"),
            "{said}"
        );
    }
    table.stage.strike().await;
}

#[tokio::test]
async fn one_id_for_two_things_is_a_mistake_of_the_file() {
    let table = Table::new(3).await;
    let account = table.account;
    let line = |id: &str, usage: usize| json!({"message_id": id, "usage_id": table.usages[usage], "amount": 5, "billing_id": account});
    let text = format!("{}\n{}\n{}\n", line("d", 0), line("d", 1), line("e", 2));
    let file = table.file("f.ndjson", &text);
    let (status, _, said) = submit(&table.stage, &file, &[]);
    assert!(
        status == 1
            && said.contains("line 2: has the id of line 1, and asks for something else")
            && said.contains("nothing was sent"),
        "{said}"
    );
    assert_eq!(entries(&table.stage).await, 0);
    let skip = ["--skip-invalid", "--output", "json"];
    let (status, told, _) = submit(&table.stage, &file, &skip);
    let expected = counts(&[("INVALID_LINE", 1), ("usage.reverted", 2)]);
    assert_eq!((status, summary(&told)), (1, expected.clone()));
    let (status, told, _) = submit(&table.stage, &file, &[&skip[..], &["--dry-run"]].concat());
    assert_eq!((status, summary(&told)), (1, expected));
    table.stage.strike().await;
}

#[tokio::test]
async fn a_table_without_its_header_or_with_an_open_quote_sends_nothing() {
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
        let (status, told, said) = submit(&table.stage, &file, &["--skip-invalid"]);
        assert!(status == 1 && said.contains(why), "{why}: {told}{said}");
        assert_eq!(told, "");
    }
    assert_eq!(entries(&table.stage).await, 0);
    // Lines may end in any of three ways.
    for (end, first) in [("\r", 0), ("\r\n", 3), ("\n", 6)] {
        let rows: Vec<_> = table.usages[first..first + 3].to_vec();
        let row = |usage: &Uuid| format!("{usage},5,{}{end}", table.account);
        let text =
            format!("usage_id,amount,billing_id{end}") + &rows.iter().map(row).collect::<String>();
        let (status, told, said) = submit(&table.stage, &table.file("g.csv", &text), &[]);
        assert!(
            status == 0 && told.starts_with("3 requests\n"),
            "{told}{said}"
        );
    }
    let (status, told, said) = submit(&table.stage, &table.file("h.csv", header), &[]);
    assert!(
        status == 0 && told == "0 requests\n" && said.contains("has no requests"),
        "{told}{said}"
    );
    table.stage.strike().await;
}

#[tokio::test]
async fn what_is_left_is_all_in_its_file_or_the_file_stays_as_it_was() {
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
        .stage
        .command(&["submit", "--file", name, "--failed", path])
        .env("REVERTD_AMQP__URL", "amqp://127.0.0.1:1")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let kept = || fs::read_to_string(&left).expect("there");
    assert_eq!(kept(), "of yesterday\n");
    // The screen can't be written to: what is on its way is finished, and all of the rest is in the file.
    let output = table
        .stage
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
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("No space left"),
        "{said}"
    );
    assert_eq!(objects(&kept()).len(), 60, "{said}");
    // The file can't be written: how many were asked is told.
    let (status, told, said) = submit(&table.stage, &file, &["--failed", "/dev/full"]);
    assert!(
        status == 1 && told.contains("60 requests\n") && said.contains("No space left"),
        "{told}{said}"
    );
    // Nothing else is left behind.
    let names = fs::read_dir(table.folder.path()).expect("a folder").count();
    assert_eq!(names, 2, "the file, and what is left of it");
    // Another name of the file itself.
    let link = table.folder.path().join("link.csv");
    fs::hard_link(&file, &link).expect("linked");
    submit(
        &table.stage,
        &file,
        &["--failed", link.to_str().expect("UTF-8")],
    );
    let now = fs::read_to_string(&file).expect("there");
    assert!(now.ends_with(&unknown), "{now}");
    table.stage.strike().await;
}
