//! `revertd dead-letters discard`, and the confirmation that replay and discard require.

use std::process::Stdio;

use serde_json::Value;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn discard_requires_a_reason_saves_and_removes() {
    let env = env_without_worker().await;
    let (_, _, all) = mixed(&env).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("letters.ndjson");
    let path = file.to_str().expect("UTF-8");
    let (status, _, stderr) = dead_letters(&env, &["discard", "--all", "--yes"]);
    assert!(status == 2 && stderr.contains("--why"), "{stderr}");
    let (status, _, _) = dead_letters(&env, &["discard", "--all", "--yes", "--why", " "]);
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
        &env,
        &[&rubbish[..], &["--by", "bob", "--save", path]].concat(),
    );
    assert_eq!(done["discarded"], 2);
    assert_eq!(listed(&env, &[]).len(), all - 2);
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
    let noted = "SELECT count(*) FROM revertd.interventions i JOIN revertd.intervention_letters l \
        ON l.intervention = i.id
        WHERE action = 'discard' AND done_by = 'bob' AND why = 'rubbish' AND saved_to IS NOT NULL";
    assert_eq!(env.count(noted).await, 2);
    // A file that is there is not touched, and then nothing is thrown away.
    let (status, _, stderr) = dead_letters(
        &env,
        &["discard", "--all", "--why", "x", "--yes", "--save", path],
    );
    assert!(status == 1 && stderr.contains("name a new one"), "{stderr}");
    assert_eq!(listed(&env, &[]).len(), all - 2);
    let done = acted(&env, &["discard", "--all", "--why", "x"]);
    assert_eq!(done["discarded"], all - 2);
    assert_eq!(listed(&env, &[]).len(), 0);
    env.teardown().await;
}

#[tokio::test]
async fn without_a_terminal_yes_is_required() {
    let env = env_without_worker().await;
    mixed(&env).await;
    for arguments in [
        &["replay", "--all"][..],
        &["discard", "--all", "--why", "x"],
        &["replay", "one"],
    ] {
        let (status, stdout, stderr) = dead_letters(&env, arguments);
        assert_eq!((status, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("--yes"), "{stderr}");
    }
    let (status, _, stderr) = dead_letters(&env, &["replay", "--yes"]);
    assert!(status == 2 && stderr.contains("--all"), "{stderr}");
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
        let (status, _, stderr) = dead_letters(&env, wrong);
        assert_eq!(status, 2, "{wrong:?}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
    // A person who says yes, and one who does not.
    for (answer, status, left) in [("n", 1, 6), ("y", 0, 2)] {
        let program = program::binary();
        let line = format!("{} dead-letters replay --all", program.display());
        let mut command = std::process::Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs(env.environment());
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
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(status), "{stdout}");
        assert!(stdout.contains("replay 4 letters?"), "{stdout}");
        eventually("the rest is back", async || {
            env.depth(&env.name("dead")).await == left
        })
        .await;
        drop(input);
    }
    env.teardown().await;
}
