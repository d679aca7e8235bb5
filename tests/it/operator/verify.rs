//! `revertd verify`: every kind of corruption is planted, and found; nothing else is.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use revertd::ledger::verify::Kind;
use serde_json::Value;
use uuid::Uuid;

use crate::support::*;

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

    /// A copy of the database, with something done to it, and what `verify` says of that.
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

/// What is done to the ledger, and all that is found then.
const CORRUPTIONS: &[(&str, &[&str])] = &[
    (
        "DELETE FROM billing_transactions WHERE id = (SELECT transaction_id FROM revertd.outcomes
         WHERE usage_id = WHOLE AND revert_no = 0)",
        &["CUSTOMER_LEG_MISSING", "LEGS_UNBALANCED"],
    ),
    (
        "DELETE FROM billing_transactions WHERE id = (SELECT platform_transaction_id FROM revertd.outcomes
         WHERE usage_id = WHOLE AND revert_no = 0)",
        &["PLATFORM_LEG_MISSING", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET account_id = gen_random_uuid()
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit'",
        &["LEG_ON_WRONG_ACCOUNT"],
    ),
    (
        "UPDATE billing_transactions SET account_id = NULL
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEG_ON_WRONG_ACCOUNT"],
    ),
    (
        "UPDATE billing_transactions SET type = 'debit'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit'",
        &["LEG_OF_WRONG_TYPE", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET amount = 19
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEG_AMOUNT_DIFFERS", "LEGS_UNBALANCED"],
    ),
    (
        "UPDATE billing_transactions SET metadata = metadata || jsonb_build_object('revert_request_using', PARTS)
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEG_NAMES_WRONG_USAGE", "LEGS_DIFFER", "LEG_WITHOUT_OUTCOME"],
    ),
    (
        "UPDATE billing_transactions SET description = 'another'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit'",
        &["LEGS_DIFFER"],
    ),
    (
        "UPDATE billing_transactions SET id = 'eeeeeeee-0000-5000-8000-000000000000'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'credit';
         UPDATE billing_transactions SET id = 'eeeeeeee-0000-8000-8000-000000000000'
         WHERE metadata ->> 'revert_request_using' = WHOLE AND type = 'debit';
         UPDATE revertd.outcomes SET transaction_id = 'eeeeeeee-0000-5000-8000-000000000000',
         platform_transaction_id = 'eeeeeeee-0000-8000-8000-000000000000'
         WHERE usage_id = WHOLE AND revert_no = 0",
        &["ENTRY_ID_UNEXPECTED"],
    ),
    // One after another: source, description, time, reason.
    (
        "UPDATE billing_transactions SET source = NULL WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE billing_transactions SET description = 'Reverted' WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN", "USAGE_CHANGED"],
    ),
    (
        "UPDATE billing_transactions SET created_at = created_at - interval '1 year'
         WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE billing_transactions SET metadata = metadata || '{\"revert_reason\": \"none\"}'
         WHERE metadata ->> 'revert_request_using' = WHOLE",
        &["LEG_NOT_AS_WRITTEN"],
    ),
    (
        "UPDATE revertd.outcomes SET client = 'another' WHERE usage_id = WHOLE AND revert_no = 0",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET message_id = 'another' WHERE refusal = 'REQUEST_ID_REUSED'",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET content = gen_random_uuid() WHERE refusal = 'REQUEST_ID_REUSED'",
        &["OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "UPDATE revertd.outcomes SET org_id = gen_random_uuid() WHERE usage_id = WHOLE AND revert_no = 0",
        &["ORG_CHANGED"],
    ),
    (
        "DELETE FROM billing_transactions WHERE id = PARTS",
        &["USAGE_MISSING"],
    ),
    (
        "UPDATE billing_transactions SET type = 'credit' WHERE id = PARTS",
        &["USAGE_MISMATCH"],
    ),
    (
        "UPDATE billing_transactions SET amount = 19 WHERE id = PARTS",
        &["USAGE_CHANGED"],
    ),
    (
        "UPDATE billing_transactions SET source = 'edited', user_id = NULL WHERE id = WHOLE",
        &["USAGE_CHANGED"],
    ),
    (
        "ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
         UPDATE revertd.outcomes SET reverted_before = 4 WHERE usage_id = PARTS AND revert_no = 1",
        &["GUARD_BROKEN", "CHAIN_BROKEN"],
    ),
    // Under its name, and keeping nothing out.
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_once CHECK (refusal IS NOT NULL OR cumulative
             OR revert_no >= 0 OR reverted_before >= 0)",
        &["GUARD_BROKEN"],
    ),
    (
        "DROP TRIGGER outcomes_chain ON revertd.outcomes",
        &["GUARD_BROKEN"],
    ),
    (
        "DELETE FROM revertd.outcomes WHERE usage_id = PARTS AND revert_no = 0",
        &["CHAIN_BROKEN", "LEG_WITHOUT_OUTCOME"],
    ),
    (
        "DELETE FROM revertd.outcomes WHERE usage_id = WHOLE AND revert_no = 0",
        &["LEG_WITHOUT_OUTCOME"],
    ),
    (
        "DROP INDEX revertd.outcomes_revert_no;
         CREATE TEMP TABLE twice AS SELECT * FROM revertd.outcomes WHERE usage_id = WHOLE AND revert_no = 0;
         UPDATE twice SET id = gen_random_uuid();
         INSERT INTO revertd.outcomes SELECT * FROM twice",
        &["GUARD_BROKEN", "REVERT_NUMBER_TWICE", "OUTCOME_ID_UNEXPECTED"],
    ),
    (
        "DROP INDEX billing_transactions_revertd_idx",
        &["INDEX_MISSING"],
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'billing_transactions_revertd_idx'::regclass",
        &["INDEX_WITHOUT_EFFECT"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;
         UPDATE revertd.outcomes SET amount = 0 WHERE refusal = 'NOT_A_USAGE'",
        &["GUARD_BROKEN", "AMOUNT_NOT_POSITIVE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_amount_positive;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_amount_positive CHECK (amount > 0) NOT VALID",
        &["GUARD_BROKEN"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_refusal_known;
         UPDATE revertd.outcomes SET refusal = 'WHIM', refusal_code = NULL, refusal_message = NULL WHERE refusal = 'NOT_A_USAGE'",
        &["GUARD_BROKEN", "REFUSAL_UNKNOWN"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_legs_belong_together;
         UPDATE revertd.outcomes SET transaction_id = gen_random_uuid() WHERE refusal = 'NOT_A_USAGE'",
        &["GUARD_BROKEN", "REFUSAL_WITH_LEG"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_legs_belong_together;
         UPDATE revertd.outcomes SET revert_no = NULL WHERE usage_id = SHARED AND refusal IS NULL",
        &["GUARD_BROKEN", "OUTCOME_INCOMPLETE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_within_usage;
         UPDATE revertd.outcomes SET usage_amount = 14 WHERE usage_id = SHARED AND refusal IS NULL",
        &["GUARD_BROKEN", "OUTCOME_EXCEEDS_USAGE", "USAGE_CHANGED"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_others_within_before;
         UPDATE revertd.outcomes SET reverted_by_others = 6 WHERE usage_id = SHARED AND refusal IS NULL",
        &["GUARD_BROKEN", "OTHERS_EXCEED_BEFORE"],
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
         UPDATE revertd.outcomes SET cumulative = false WHERE usage_id = PARTS AND revert_no = 1",
        &["GUARD_BROKEN", "ONCE_BROKEN"],
    ),
    // A second revert of all of it, with everything that belongs to it.
    (
        "ALTER TABLE revertd.outcomes DISABLE TRIGGER outcomes_chain;
         CREATE TEMP TABLE more AS SELECT * FROM revertd.outcomes WHERE usage_id = WHOLE AND revert_no = 0;
         UPDATE more SET id = gen_random_uuid(), revert_no = 1, cumulative = true,
             transaction_id = revertd.entry_id(usage_id, 1, account_id),
             platform_transaction_id = revertd.platform_leg(revertd.entry_id(usage_id, 1, account_id));
         CREATE TEMP TABLE legs AS SELECT * FROM billing_transactions
             WHERE metadata ->> 'revert_request_using' = WHOLE;
         UPDATE legs SET id = CASE type WHEN 'credit' THEN (SELECT transaction_id FROM more)
             ELSE (SELECT platform_transaction_id FROM more) END;
         INSERT INTO revertd.outcomes SELECT * FROM more;
         INSERT INTO billing_transactions SELECT * FROM legs",
        &["GUARD_BROKEN", "CHAIN_BROKEN", "REVERTS_EXCEED_USAGE", "OUTCOME_ID_UNEXPECTED"],
    ),
    // A revert by another writer, with its own form of the id and an unrelated platform leg.
    (
        "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
         SELECT gen_random_uuid(), leg.account, leg.type, 1,
             jsonb_build_object('revert_request_using', '{' || upper(WHOLE) || '}')
         FROM billing_transactions t CROSS JOIN LATERAL
             (VALUES (t.account_id, 'credit'), (uuid_nil(), 'debit')) leg (account, type)
         WHERE t.id = WHOLE",
        &["EXCESS_WITH_OTHERS"],
    ),
    (
        "DELETE FROM billing_transactions WHERE metadata ->> 'revert_request_using' = SHARED
         AND type = 'debit' AND amount = 5",
        &["LEGS_UNBALANCED"],
    ),
    // Not ours to judge: nonsense that names no usage, and an account that Frontier deleted.
    // Usages whose reporter chose an id and metadata that look like a leg's.
    (
        "INSERT INTO billing_transactions (id, account_id, type, source, amount, metadata)
         SELECT id::uuid, account, type, 'api', 7, jsonb_build_object('revert_request_using', PARTS)
         FROM (SELECT account_id AS customer FROM billing_transactions WHERE id = PARTS) t CROSS JOIN LATERAL
             (VALUES ('eeeeeeee-0000-8000-8000-000000000001', customer, 'debit'),
                 ('eeeeeeee-0000-8000-8000-000000000002', uuid_nil(), 'credit')) leg (id, account, type)",
        &[],
    ),
    (
        "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
         VALUES (gen_random_uuid(), gen_random_uuid(), 'credit', 1, '{\"revert_request_using\": [1]}')",
        &[],
    ),
    (
        "UPDATE billing_customers SET deleted_at = now();
         DELETE FROM billing_transactions WHERE account_id IN (SELECT id FROM billing_customers)",
        &[],
    ),
];

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
    let known: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
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
    env
        .sql(
            "INSERT INTO billing_transactions (id, account_id, type, amount, metadata)
             SELECT overlay(gen_random_uuid()::text PLACING '8' FROM 15 FOR 1)::uuid, uuid_nil(), 'debit', 1,
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
