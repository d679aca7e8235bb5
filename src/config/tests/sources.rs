//! The sources of values: file, environment, and errors that name them.

use super::*;

#[test]
fn environment_overrides_file_overrides_defaults() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "[worker]\nbatch_max = 7\nconcurrency = 2\n").expect("written");
    let environment = [
        ("REVERTD_WORKER__BATCH_MAX".to_owned(), "9".to_owned()),
        ("REVERTD_RETRY__DELAYS".to_owned(), "250ms,90s".to_owned()),
        ("REVERTD_CONFIG".to_owned(), "x".to_owned()),
        ("OTHER__KEY".to_owned(), "x".to_owned()),
    ];
    let settings = Settings::load_from(Some(file.path()), environment).expect("valid");
    assert_eq!(settings.worker.batch_max, 9);
    assert_eq!(settings.worker.concurrency, 2);
    assert_eq!(
        settings.retry_queues(),
        ["usage.reverts.retry.250ms", "usage.reverts.retry.1m30s"]
    );
}

#[test]
fn an_unknown_key_stops_the_start_with_its_name() {
    let message = refused(&[("REVERTD_DATABASE__URI", "postgres://localhost")]);
    assert!(
        message.contains("uri") && message.contains("database"),
        "{message}"
    );
    let message = refused(&[("REVERTD_DATABSE__URL", "postgres://localhost")]);
    assert!(message.contains("databse"), "{message}");
    let message = load_file("[worker]\nbatchmax = 3\n").expect_err("unknown");
    assert!(
        message.contains("batchmax") && message.contains("worker"),
        "{message}"
    );
    let message = load_file("worker = 3").expect_err("no table");
    assert!(message.contains("worker"), "{message}");
    let message = load_file("[worker\n").expect_err("no TOML");
    assert!(message.contains("not valid TOML"), "{message}");
}

#[test]
fn an_unknown_revertd_variable_stops_the_start() {
    for name in [
        "REVERTD_REVERT_POLICY",
        "REVERTD_RETRY_USAGE_NOT_FOUND_ATTEMPTS",
    ] {
        let message = refused(&[(name, "cumulative")]);
        assert!(message.contains(name), "{message}");
    }
    let message = refused(&[("REVERTD_REVERT_POLICY", "cumulative")]);
    assert!(message.contains("REVERTD_REVERT__POLICY"), "{message}");
    // An orchestrator, the tests, the compose file or a client of the gateway set these.
    for name in [
        "REVERTD_CONFIG",
        "REVERTD_TEST_INSTANCE",
        "REVERTD_FAULTS_SEED",
        "REVERTD_GATEWAY_PORT",
        "REVERTD_GATEWAY_SERVICE_HOST",
        "REVERTD_CLIENT_ID",
    ] {
        assert!(load(&[(name, "x")]).is_ok(), "{name}");
    }
}

#[test]
fn an_invalid_setting_names_its_source() {
    let message = refused(&[("REVERTD_REVERT__POLICY", "often")]);
    assert!(
        message.contains("revert.policy is set by REVERTD_REVERT__POLICY"),
        "{message}"
    );
    let message = refused(&[("REVERTD_DATABASE__URI", "x")]);
    assert!(
        message.contains("database.uri is set by REVERTD_DATABASE__URI"),
        "{message}"
    );
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "[worker]\nconcurrency = 4\nbatch_max = 700\n").expect("written");
    let set = [("REVERTD_AMQP__PREFETCH".to_owned(), "600".to_owned())];
    let error = Settings::load_from(Some(file.path()), set).expect_err("a contradiction");
    let error = error.to_string();
    let of_file = format!("worker.batch_max is set in {}", file.path().display());
    assert!(error.contains(&of_file), "{error}");
    assert!(
        error.contains("amqp.prefetch is set by REVERTD_AMQP__PREFETCH"),
        "{error}"
    );
    let sources = Settings::load_from(Some(file.path()), [])
        .expect("valid")
        .sources;
    let read = sources.to_string();
    assert!(read.contains(&file.path().display().to_string()), "{read}");
}
