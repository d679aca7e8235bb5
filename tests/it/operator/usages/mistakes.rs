//! Wrong arguments, each once, with what to do instead.

use tempfile::TempDir;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn each_wrong_argument_says_what_is_right() {
    let env = TestEnv::new().await;
    let account = env.customer().await.account.to_string();
    let long_name = "x".repeat(256);
    let long_reason = "\u{fc}".repeat(513);
    let long_batch = "x".repeat(101);
    for (arguments, words) in [
        (&[][..], "<--org <ID|NAME>|--account <UUID>>"),
        (
            &["--org", "acme", "--account", &account],
            "cannot be used with",
        ),
        (
            &["--account", "acme"],
            "invalid value 'acme' for '--account <UUID>'",
        ),
        (
            &["--org", ""],
            "must be the id of an org, or its name of 1 to 255 characters",
        ),
        (&["--org", &long_name], "must be the id of an org"),
        (&["--org", "a\nb"], "must be the id of an org"),
        (&["--org", "a", "--since", "soon"], "must be a time such as"),
        (
            &["--org", "a", "--until", "2h ago"],
            "must be a time such as",
        ),
        (
            &["--org", "a", "--since", "1h", "--until", "2h"],
            "--since must be before --until",
        ),
        (
            &["--org", "a", "--metadata", "job"],
            "must be a key, = and a value",
        ),
        (
            &["--org", "a", "--metadata", "=x"],
            "must be a key, = and a value",
        ),
        (
            &["--org", "a", "--metadata", "job=1", "--metadata", "job=2"],
            "--metadata names a key twice; run the command once for each value",
        ),
        (&["--org", "a", "--limit", "0"], "0 is not in 1.."),
        (
            &["--org", "a", "--reason", ""],
            "must have 1 to 512 characters",
        ),
        (
            &["--org", "a", "--reason", &long_reason],
            "must have 1 to 512 characters",
        ),
        (
            &["--org", "a", "--reason", "a\tb"],
            "none of them a control character",
        ),
        (
            &["--org", "a", "--batch", ""],
            "must be a name of 1 to 100 bytes",
        ),
        (
            &["--org", "a", "--batch", &long_batch],
            "must be a name of 1 to 100 bytes",
        ),
        (
            &["--org", "a", "--batch", "a\u{7f}"],
            "without control characters",
        ),
        (&["--org", "a", "--file", "requests.CSV"], "name it .ndjson"),
        (&["--org", "a", "--file", "/"], "must name a file"),
    ] {
        let (status, stdout, stderr) = told(&env, arguments);
        assert_eq!(
            (status, stdout.as_str()),
            (2, ""),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn an_existing_file_is_kept() {
    let env = TestEnv::new().await;
    let account = env.customer().await.account;
    env.usage(account, 20).await;
    let account = account.to_string();
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("requests.ndjson");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "mine").expect("written");
    let arguments = ["--account", &account, "--file", path];
    let (status, stdout, stderr) = told(&env, &arguments);
    let expected = format!("revertd: the file {path} exists already; name a new one\n");
    assert_eq!((status, stdout.as_str(), stderr), (1, "", expected));
    assert_eq!(std::fs::read_to_string(&file).expect("kept"), "mine");
    // A dry run writes no file, so that it may name one that exists.
    let (status, stdout, _) = told(&env, &[&arguments[..], &["--dry-run"]].concat());
    assert!(
        status == 0 && stdout.starts_with("1 usage of 1 account, 20 in all"),
        "{stdout}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1
    );

    let nowhere = ["--account", &account, "--file", "/nowhere/at/all"];
    let (status, _, stderr) = told(&env, &nowhere);
    assert!(
        status == 1 && stderr.contains("cannot create the file /nowhere/at/all: "),
        "{stderr}"
    );
    env.teardown().await;
}
