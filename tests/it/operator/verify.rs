//! `revertd verify`: each planted corruption is found, and a sound ledger has no findings.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use revertd::ledger::verify::FindingKind;
use serde_json::Value;
use uuid::Uuid;

use crate::support::*;

mod corruptions;

use corruptions::CORRUPTIONS;

/// A ledger in which everything happened that may, and all of it is right.
struct Sound {
    env: TestEnv,
    /// Reverted in two parts.
    parts: Uuid,
    /// Reverted once, wholly.
    whole: Uuid,
    /// Reverted by Frontier first.
    shared: Uuid,
}

impl Sound {
    async fn new() -> Self {
        let mut env = TestEnv::new().await;
        let customer = env.customer().await;
        let account = customer.account;
        let mut usages = Vec::new();
        for _ in 0..4 {
            usages.push(env.usage(account, 20).await);
        }
        let (parts, whole, shared) = (usages[0], usages[1], usages[2]);
        let name = format!("{shared}:0:{account}");
        env.frontier_revert(&name, account, &shared.to_string(), 5)
            .await;
        let purchase = env.purchase(account, 100).await;
        let mut worker = env.start_worker().await;
        let mut events = env.events().await;
        let again = Request::revert(account, whole, 20).id("again");
        for (request, verdict) in [
            (again.clone(), "usage.reverted"),
            (Request::revert(account, whole, 1), "ALREADY_REVERTED"),
            (
                Request::revert(account, usages[3], 1).id("again"),
                "REQUEST_ID_REUSED",
            ),
            (
                Request::revert(account, Uuid::new_v4(), 1).single_attempt(),
                "USAGE_NOT_FOUND",
            ),
            (Request::revert(account, purchase, 1), "NOT_A_USAGE"),
        ] {
            env.publish(&request).await;
            assert_eq!(events.answer(&request).await.verdict(), verdict);
        }
        assert!(worker.stop().await.success());
        env.set("REVERT__POLICY", "cumulative");
        let mut worker = env.start_worker().await;
        for (usage, amount, verdict) in [
            (parts, 5, "usage.reverted"),
            (parts, 6, "usage.reverted"),
            (parts, 10, "AMOUNT_EXCEEDS_USAGE"),
            (shared, 10, "usage.reverted"),
        ] {
            let request = Request::revert(account, usage, amount);
            env.publish(&request).await;
            assert_eq!(events.answer(&request).await.verdict(), verdict);
        }
        assert!(worker.stop().await.success());
        Self {
            env,
            parts,
            whole,
            shared,
        }
    }

    /// Puts ids in place of names, and conditions on rows.
    fn fill(&self, sql: &str) -> String {
        sql.replace("PARTS", &format!("'{}'", self.parts))
            .replace("WHOLE", &format!("'{}'", self.whole))
            .replace("SHARED", &format!("'{}'", self.shared))
            .replace(
                "O_0",
                "(SELECT * FROM revertd.outcomes WHERE usage_id = U AND revert_no = 0)",
            )
    }

    /// The result of `verify` on a copy of the database that a statement changed.
    async fn after(&self, copy: &str, sql: &str) -> (i32, Vec<Value>) {
        let url = with_database(&self.env.servers.database, copy);
        let db = connect_db(&url).await;
        let sql = self.fill(sql);
        db.batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        verify(&self.env, &url, &[])
    }
}

fn verify(env: &TestEnv, url: &str, arguments: &[&str]) -> (i32, Vec<Value>) {
    let output = env
        .command(&[&["verify", "--output", "json"], arguments].concat())
        .env("REVERTD_DATABASE__URL", url)
        .output()
        .expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let read = |line: &str| serde_json::from_str(line).expect("an object a line");
    let status = output.status.code().expect("no signal");
    let lines: Vec<Value> = stdout.lines().map(read).collect();
    assert!(!lines.is_empty(), "{status}: {stderr}");
    (status, lines)
}

fn codes(lines: &[Value]) -> BTreeSet<&str> {
    let codes = lines.iter().filter_map(|line| line["code"].as_str());
    codes.collect()
}

#[tokio::test]
async fn every_kind_of_corruption_is_found_and_no_more() {
    let sound = Sound::new().await;
    let env = &sound.env;
    let url = with_database(&env.servers.database, &env.database);
    let (status, lines) = verify(env, &url, &[]);
    assert_eq!((status, codes(&lines)), (0, BTreeSet::new()), "{lines:?}");
    let summary = &lines[lines.len() - 1]["summary"];
    assert_eq!(
        (&summary["outcomes"], &summary["legs"]),
        (&9.into(), &10.into())
    );

    let admin = connect_db(&env.servers.database).await;
    let copy = format!("{}_v", env.database);
    let mut planted = BTreeSet::new();
    for (sql, expected) in CORRUPTIONS {
        let connected = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            env.database
        );
        admin.batch_execute(&connected).await.expect("told to go");
        let create = format!("CREATE DATABASE {copy} TEMPLATE {}", env.database);
        eventually("the original is free", async || {
            admin.batch_execute(&create).await.is_ok()
        })
        .await;
        let (status, lines) = sound.after(&copy, sql).await;
        let drop = format!("DROP DATABASE {copy} WITH (FORCE)");
        admin.batch_execute(&drop).await.expect("dropped");
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(codes(&lines), expected, "{sql}: {lines:#?}");
        let is_warning = |code: &&&str| ["USAGE_CHANGED", "ORG_CHANGED"].contains(code);
        let broken = !expected.iter().all(|code| is_warning(&code));
        assert_eq!(status, i32::from(broken), "{sql}");
        for line in &lines[..lines.len() - 1] {
            let names = ["outcome", "usage", "about"];
            assert!(names.iter().any(|name| !line[name].is_null()), "{line}");
        }
        planted.extend(expected);
    }
    let known: BTreeSet<_> = FindingKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(planted, known, "each kind is planted");
    sound.env.teardown().await;
}

#[tokio::test]
async fn verify_runs_beside_workers_on_one_snapshot() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let (customer, mut events) = (env.customer().await, env.events().await);
    let url = with_database(&env.servers.database, &env.database);
    let mut requests = Vec::new();
    for _ in 0..200 {
        let usage = env.usage(customer.account, 20).await;
        requests.push(Request::revert(customer.account, usage, 5));
    }
    for chunk in requests.chunks(50) {
        for request in chunk {
            env.publish(request).await;
        }
        let (status, lines) = verify(&env, &url, &[]);
        assert_eq!(status, 0, "{lines:?}");
    }
    for request in &requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
    assert!(worker.stop().await.success());
    let mut outcomes = 0;
    for part in [
        &["--to", "3fff"][..],
        &["--from", "4", "--to", "b"],
        &["--from", "c0000000-0000"],
    ] {
        let (status, lines) = verify(&env, &url, part);
        let summary = &lines[lines.len() - 1]["summary"];
        assert_eq!((status, &summary["balance_checked"]), (0, &false.into()));
        outcomes += summary["outcomes"].as_i64().expect("a number");
    }
    assert_eq!(outcomes, 200, "each part once");
    for wrong in [&["--from", "x"][..], &["--from", "2", "--to", "1"]] {
        let output = env.command(&[&["verify"], wrong].concat()).output();
        assert_eq!(output.expect("runs").status.code(), Some(2));
    }
    env.teardown().await;
}

#[tokio::test]
async fn verify_survives_a_closed_pipe() {
    let env = TestEnv::new().await;
    env.sql(
        "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
             SELECT overlay(gen_random_uuid()::text PLACING '8' FROM 15 FOR 1)::uuid, uuid_nil(), \
             'debit', 1,
                 jsonb_build_object('revert_request_using', gen_random_uuid()::text)
             FROM generate_series(1, 5000)",
    )
    .await;
    let mut command = env.command(&["verify"]).bare();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let stdout = child.stdout.take().expect("piped");
    let head = Command::new("head")
        .args(["-n", "1"])
        .stdin(stdout)
        .output();
    let first = String::from_utf8(head.expect("runs").stdout).expect("UTF-8");
    assert!(first.starts_with("LEG_WITHOUT_OUTCOME usage "), "{first}");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    env.teardown().await;
}
