//! The command line as a user meets it: results, exit statuses, messages.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::*;

fn run(env: &TestEnv, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = env.command(arguments).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        status.code().expect("no signal"),
        text(stdout),
        text(stderr),
    )
}

#[tokio::test]
async fn submit_prints_the_event_and_exits_by_its_type() {
    let (env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await.to_string();
    let (org, account) = (customer.org.to_string(), customer.account.to_string());
    let first = [
        "submit",
        "--usage-id",
        &usage,
        "--amount",
        "5",
        "--org-id",
        &org,
        "--message-id",
        "job-7",
        "--reason",
        "the job failed",
    ];
    let (status, stdout, _) = run(&env, &first);
    assert_eq!(status, 0);
    assert!(
        stdout.starts_with("usage.reverted: 5 of 20 given back, 15 remain (request job-7"),
        "{stdout}"
    );

    let (status, stdout, _) = run(&env, &[&first[..], &["--output", "json"]].concat());
    let event: Value = serde_json::from_str(&stdout).expect("the event, alone");
    assert_eq!(
        (status, &event["data"]["reason"]),
        (0, &json!("the job failed"))
    );

    let again = [
        "submit",
        "--usage-id",
        &usage,
        "--amount",
        "5",
        "--billing-id",
        &account,
    ];
    let (status, stdout, _) = run(&env, &again);
    assert_eq!(status, 1);
    assert!(
        stdout.contains("ALREADY_REVERTED") && stdout.contains("amount 5"),
        "{stdout}"
    );

    let (status, stdout, _) = run(&env, &["submit", "--usage-id", "x", "--amount", "-1"]);
    assert_eq!(status, 1);
    for text in [
        "INVALID_FIELD",
        "usage_id must be",
        "amount must be",
        "billing_id one of",
    ] {
        assert!(stdout.contains(text), "{stdout}");
    }
    let (status, stdout, _) = run(&env, &["submit", "--body", "rubbish"]);
    assert_eq!(status, 1);
    assert!(
        stdout.starts_with("usage.revert.failed: MALFORMED_REQUEST"),
        "{stdout}"
    );

    assert!(worker.stop().await.success());
    let unanswered = [
        "submit",
        "--body",
        "{}",
        "--timeout",
        "100ms",
        "--message-id",
        "later",
    ];
    let (status, stdout, stderr) = run(&env, &unanswered);
    assert_eq!((status, stdout.as_str()), (3, ""));
    assert!(stderr.contains("--message-id later"), "{stderr}");
    env.teardown().await;
}

#[tokio::test]
async fn submit_before_the_first_worker_says_so() {
    let env = TestEnv::new().await;
    let (status, _, stderr) = run(&env, &["submit", "--body", "{}"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("t.") && stderr.contains("revertd worker"),
        "{stderr}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn wrong_usage_exits_with_2_and_a_hint() {
    let env = TestEnv::new().await;
    for arguments in [
        &["nonsense"][..],
        &["submit"],
        &["submit", "--usage-id", "x"],
        &["submit", "--body", "{}", "--timeout", "soon"],
        &["submit", "--body", "{}", "--max-attempts", "0"],
        &["config", "--output", "xml"],
    ] {
        let (status, _, stderr) = run(&env, arguments);
        assert_eq!(status, 2, "{arguments:?}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
    for arguments in [
        &["--help"][..],
        &["worker", "--help"],
        &["submit", "--help"],
        &["gateway", "--help"],
        &["--version"],
    ] {
        assert_eq!(run(&env, arguments).0, 0, "{arguments:?}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn config_prints_effective_values_without_passwords() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "17");
    env.set("DATABASE__URL", "postgres://me:hunter2@db/x");
    logs::secret("hunter2");
    let (status, stdout, _) = run(&env, &["config"]);
    assert_eq!(status, 0);
    assert!(
        stdout.contains("batch_max = 17") && stdout.contains("postgres://me:***@db/x"),
        "{stdout}"
    );
    assert!(!stdout.contains("hunter2"));
    let (_, stdout, _) = run(&env, &["config", "--output", "json"]);
    let parsed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(parsed["worker"]["batch_max"], 17);
    // Its output is a valid configuration.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), run(&env, &["config"]).1).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    assert_eq!(run(&env, &["config", "--config", path]).0, 0);
    env.teardown().await;
}

#[tokio::test]
async fn concurrent_migrations_apply_each_step_once() {
    let env = TestEnv::new().await;
    env.sql("DROP SCHEMA revertd CASCADE; DROP INDEX billing_transactions_revertd_idx")
        .await;
    let many: Vec<_> = (0..6)
        .map(|_| {
            let mut command = env.command(&["migrate", "--output", "json"]);
            std::thread::spawn(move || command.output().expect("runs"))
        })
        .collect();
    let mut applied = 0;
    for one in many {
        let output = one.join().expect("ends");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let stdout: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        applied += stdout["applied"].as_array().expect("a list").len();
    }
    let migrations = std::fs::read_dir("migrations").expect("the folder is there");
    assert_eq!(
        applied,
        migrations.count() + 1,
        "the migrations, and the index"
    );
    // A half-built index, as a crash leaves it, is replaced.
    env.sql(
        "UPDATE pg_index SET indisvalid = false \
             WHERE indexrelid = 'billing_transactions_revertd_idx'::regclass",
    )
    .await;
    assert_eq!(
        run(&env, &["migrate"]),
        (
            0,
            "applied billing_transactions_revertd_idx\n".into(),
            String::new()
        )
    );
    let valid = "SELECT count(*) FROM pg_index WHERE indisvalid \
        AND indexrelid = 'billing_transactions_revertd_idx'::regclass";
    assert_eq!(env.count(valid).await, 1);
    env.teardown().await;
}
