//! Two builds side by side: this version, and one that refuses locked usages. The second is built
//! from this version's sources, changed as the next version would be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{later_event, run};
use crate::support::*;

/// The refusal that only the later version knows.
const REASON: &str = "USAGE_LOCKED";

/// Its changes: a file, a text that occurs in it once, and the replacement.
const CHANGES: [(&str, &str, &str); 7] = [
    // A package of its own, or cargo would put one program in the place of the other.
    (
        "Cargo.toml",
        "name = \"revertd\"\n",
        "name = \"revertd-later\"\n",
    ),
    (
        "Cargo.lock",
        "name = \"revertd\"\n",
        "name = \"revertd-later\"\n",
    ),
    (
        "src/domain/refusal.rs",
        "    RevertWindowClosed {\n",
        "    UsageLocked {
        reason: \"USAGE_LOCKED\",
        code: RpcCode::FailedPrecondition,
        is_denied: false,
        is_stored: true,
        message: \"the usage is locked\",
        when: \"the metadata of the usage says `\\\"locked\\\": true`\",
    }
    RevertWindowClosed {\n",
    ),
    (
        "src/domain/decide/facts.rs",
        "    pub is_closed: bool,\n",
        "    pub is_closed: bool,\n    /// Whether it is locked.\n    pub is_locked: bool,\n",
    ),
    (
        "src/domain/decide/batch.rs",
        "        if usage.is_closed {\n",
        "        if usage.is_locked {
            return because(RefusalReason::UsageLocked);
        }
        if usage.is_closed {\n",
    ),
    (
        "src/ledger/apply/facts.rs",
        "            amount,\n",
        "            amount,\n            is_locked: is_true(12)?,\n",
    ),
    (
        "src/ledger/apply/facts.sql",
        "END AS created_later",
        "END AS created_later,\n    usage.metadata -> 'locked' = 'true' AS is_locked",
    ),
];

/// Builds the later version beside this one, from the same sources and crates; fast if neither
/// changed.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("later");
    for path in ["Cargo.toml", "Cargo.lock", "src", "migrations", "config"] {
        copy(Path::new(path), &folder);
    }
    write(
        &folder.join("tests/later.rs"),
        "//! Has cargo build the program as it builds it for tests.\n",
    );
    let this = program::binary();
    let target = this.ancestors().nth(2).expect("target/PROFILE/revertd");
    let output = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--quiet", "--locked", "--offline"])
        .args(["--features", "failpoints", "--test", "later"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the later version: {said}");
    this.with_file_name("revertd-later")
}

/// Copies a file or a folder as the later version has it.
fn copy(path: &Path, folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.join(path).is_dir() {
        for entry in fs::read_dir(root.join(path)).expect("a folder") {
            copy(&path.join(entry.expect("an entry").file_name()), folder);
        }
        return;
    }
    let text = fs::read_to_string(root.join(path)).expect("a text");
    write(
        &folder.join(path),
        &changed(path.to_str().expect("UTF-8"), text),
    );
}

/// Does not touch a file that is up to date, so that cargo rebuilds only changed files.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
}

fn changed(path: &str, mut text: String) -> String {
    for (_, old, new) in CHANGES.iter().filter(|change| change.0 == path) {
        assert_eq!(text.matches(old).count(), 1, "{path}: {old}");
        text = text.replace(old, new);
    }
    if path == "Cargo.toml" {
        // Its tests and benches are not copied.
        let (before, after) = text.split_once("[[test]]").expect("tests");
        let (_, after) = after.split_once("[profile").expect("profiles");
        text = format!(
            "{before}[[bin]]\nname = \"revertd-later\"\npath = \"src/main.rs\"\n
[lib]\nname = \"revertd\"\n\n[profile{after}\n
             [profile.dev.package.revertd-later]\ndebug = false\n"
        );
    }
    text
}

/// A worker of the later version.
async fn later_worker(env: &TestEnv, binary: &Path) -> WorkerProcess {
    let mut program = Program::of(binary, &["worker"]);
    for (name, value) in env.environment() {
        program.env(name, value);
    }
    let mut worker = WorkerProcess::spawn(program);
    worker.ready().await;
    worker
}

#[tokio::test]
async fn both_builds_publish_outcomes_of_either() {
    let later = build();
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let (locked, open) = (
        env.usage(customer.account, 20).await,
        env.usage(customer.account, 20).await,
    );
    let lock = format!(
        "UPDATE billing_transactions SET metadata = '{{\"locked\": true}}' WHERE id = '{locked}'"
    );
    env.sql(&lock).await;
    let refused = Request::revert(customer.account, locked, 5);
    let reverted = Request::revert(customer.account, open, 5);

    let mut worker = later_worker(&env, &later).await;
    env.publish(&refused).await;
    let refusal = later_event(&env).await;
    let detail = &refusal.json()["data"]["error"]["details"][0]["reason"];
    assert_eq!(*detail, json!(REASON));
    assert!(worker.stop().await.success());

    // This version does not know the refusal, and tells it.
    let mut worker = env.start_worker().await;
    env.publish(&refused).await;
    assert_eq!(later_event(&env).await.body, refusal.body);
    env.publish(&reverted).await;
    let success = later_event(&env).await;
    assert_eq!(success.verdict(), "usage.reverted");

    // Both versions run, and either may get the request.
    let mut other = later_worker(&env, &later).await;
    for _ in 0..20 {
        for (request, event) in [(&refused, &refusal), (&reverted, &success)] {
            env.publish(request).await;
            assert_eq!(later_event(&env).await.body, event.body);
        }
    }
    let (status, told, said) = run(&env, &["verify"]);
    assert_eq!(status, 0, "{told}{said}");
    let log = worker.log() + &other.log();
    assert!(
        !log.contains("panicked") && !log.contains("paused"),
        "{log}"
    );
    assert!(worker.stop().await.success() && other.stop().await.success());
    env.teardown().await;
}
