use std::time::Duration;

use super::*;

mod transport;

fn load(environment: &[(&str, &str)]) -> Result<Settings, String> {
    let owned = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load_from(None, owned).map_err(|error| error.to_string())
}

fn load_file(text: &str) -> Result<Settings, String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    Settings::load_from(Some(file.path()), []).map_err(|error| error.to_string())
}

fn refused(environment: &[(&str, &str)]) -> String {
    load(environment).expect_err("the configuration is wrong")
}

#[test]
fn the_built_in_file_has_the_documented_defaults() {
    let settings = load(&[]).expect("valid");
    assert_eq!(settings.prefetch(), 1000);
    assert_eq!(settings.pool_size(), 5);
    assert_eq!(settings.amqp.max_message_bytes.bytes(), 64 * 1024);
    assert_eq!(settings.amqp.max_group, 1000);
    assert_eq!(settings.amqp.max_group_bytes.bytes(), 1024 * 1024);
    assert_eq!(settings.retry_queues()[1], "usage.reverts.retry.5s");
    assert_eq!(settings.retry_queues()[3], "usage.reverts.retry.2m");
    assert_eq!(settings.revert.policy, Policy::Once);
    assert_eq!(settings.revert.max_age, None);
}

#[test]
fn keys_commented_out_in_the_built_in_file_exist() {
    let uncommented = DEFAULTS
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.split(" = ").next().unwrap_or_default();
            let is_key =
                bare.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            format!("{}\n", if is_key { bare } else { line })
        })
        .collect::<Vec<_>>()
        .concat();
    // Each file key is checked by the error for its missing file; the gateway reads its files at
    // its start.
    let (files, others): (Vec<_>, Vec<_>) = uncommented
        .lines()
        .partition(|line| line.contains("_file = \"") && !line.contains("gateway"));
    assert_eq!(files.len(), 8);
    for file in files {
        let (key, path) = file.split_once(" = ").expect("a key");
        for section in ["amqp", "database"].map(|name| format!("[{name}]\n{file}\n")) {
            let error = load_file(&section).expect_err("no such file");
            let path = path.trim_matches('"');
            assert!(
                error.contains(&format!(".{key}: cannot read {path}")),
                "{error}"
            );
        }
    }
    let settings = load_file(&others.join("\n")).expect("valid");
    assert!(settings.revert.max_age.is_some() && settings.amqp.prefetch.is_some());
}

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
fn text_that_looks_like_a_number_stays_text() {
    let settings = load(&[("REVERTD_TOPOLOGY__WORK_QUEUE", "123")]).expect("valid");
    assert_eq!(settings.topology.work_queue.as_str(), "123");
    let one = load(&[("REVERTD_RETRY__DELAYS", "5s")]).expect("valid");
    assert_eq!(one.retry.delays.len(), 1);
}

#[test]
fn the_broker_may_have_several_addresses() {
    let urls = "amqp://u:a,b@one:1/%2f,amqp://u:c@two/%2f, amqp://u:c@three/%2f";
    let settings = load(&[("REVERTD_AMQP__URL", urls)]).expect("valid");
    let hosts: Vec<_> = settings.amqp.url.iter().map(AmqpUrl::host).collect();
    assert_eq!(hosts, ["one:1", "two:5672", "three:5672"]);
    let shown = settings.amqp.url.to_string();
    assert!(!shown.contains("a,b") && !shown.contains(":c@"), "{shown}");
    let file = tempfile::NamedTempFile::new().expect("created");
    std::fs::write(
        &file,
        "[amqp]\nurl = ['amqp://u:p@one', 'amqp://u:p@two']\n",
    )
    .expect("written");
    let settings = Settings::load_from(Some(file.path()), []).expect("valid");
    assert_eq!(settings.amqp.url.iter().len(), 2);
}

#[test]
fn gateway_settings_are_checked_together() {
    for (name, value, said) in [
        (
            "REVERTD_GATEWAY__LISTEN",
            "localhost",
            "gateway.listen: must be an IP address and a port",
        ),
        (
            "REVERTD_GATEWAY__TIMEOUT",
            "0s",
            "gateway.timeout is out of range",
        ),
        (
            "REVERTD_GATEWAY__TIMEOUT",
            "2h",
            "gateway.timeout is out of range",
        ),
        (
            "REVERTD_GATEWAY__MAX_IN_FLIGHT",
            "0",
            "gateway.max_in_flight is 0",
        ),
        (
            "REVERTD_GATEWAY__CERT_FILE",
            "/x",
            "gateway.cert_file is set, but gateway.key_file is not",
        ),
        (
            "REVERTD_GATEWAY__KEY_FILE",
            "/x",
            "gateway.key_file is set, but gateway.cert_file is not",
        ),
    ] {
        let error = refused(&[(name, value)]);
        assert!(error.contains(said), "{error}");
    }
    let files = [
        ("REVERTD_GATEWAY__CERT_FILE", "/cert"),
        ("REVERTD_GATEWAY__KEY_FILE", "/key"),
        ("REVERTD_GATEWAY__LISTEN", "[::]:7400"),
    ];
    let gateway = load(&files).expect("valid").gateway;
    assert_eq!(gateway.listen.to_string(), "[::]:7400");
    assert_eq!(gateway.key_file.as_deref(), Some(Path::new("/key")));
    let gateway = load(&[]).expect("valid").gateway;
    assert_eq!(gateway.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(
        (gateway.timeout, gateway.cert_file),
        (Duration::from_secs(10), None)
    );
}

#[test]
fn an_invalid_value_names_its_key_and_valid_values() {
    for (name, value, said) in [
        ("REVERTD_AMQP__PREFETCH", "many", "amqp.prefetch"),
        (
            "REVERTD_AMQP__URL",
            "http://localhost",
            "amqp.url: has a scheme other than amqp",
        ),
        (
            "REVERTD_AMQP__URL",
            "amqps://localhost?verify=verify_none",
            "amqp.url: has verify=, which revertd does not read",
        ),
        (
            "REVERTD_AMQP__URL",
            "amqp://u:p@one,amqp://v:p@two",
            "amqp.url: has addresses of different users",
        ),
        (
            "REVERTD_AMQP__REPLY_TO_PATTERN",
            "(",
            "amqp.reply_to_pattern: is not a regular expression",
        ),
        (
            "REVERTD_DATABASE__URL",
            "mysql://localhost",
            "database.url: must look like postgres://",
        ),
        (
            "REVERTD_WORKER__SHUTDOWN_TIMEOUT",
            "soon",
            "worker.shutdown_timeout",
        ),
        ("REVERTD_RETRY__DELAYS", "1s,later", "retry.delays[1]"),
        (
            "REVERTD_RETRY__DELAYS",
            "1s,1000ms",
            "two queues would be named usage.reverts.retry.1s",
        ),
        (
            "REVERTD_REVERT__POLICY",
            "twice",
            "revert.policy: is \"twice\"; it must be one of: once, cumulative",
        ),
        (
            "REVERTD_LEDGER__SCHEMA",
            "a\"b",
            "ledger.schema: must be a schema's name",
        ),
        (
            "REVERTD_LEDGER__PLATFORM_ACCOUNT",
            "0",
            "ledger.platform_account",
        ),
        (
            "REVERTD_AUTHORIZATION__MODE",
            "none",
            "authorization.mode: is \"none\"; it must be one of: grants, broker",
        ),
        (
            "REVERTD_AMQP__MAX_MESSAGE_BYTES",
            "big",
            "amqp.max_message_bytes",
        ),
        (
            "REVERTD_WORKER__CONCURRENCY",
            "0",
            "worker.concurrency is 0",
        ),
        ("REVERTD_WORKER__CONCURRENCY", "-1", "worker.concurrency"),
        (
            "REVERTD_DATABASE__POOL_SIZE",
            "1",
            "database.pool_size (1) is less than",
        ),
        (
            "REVERTD_AMQP__PREFETCH",
            "10",
            "amqp.prefetch (10) is less than",
        ),
        (
            "REVERTD_WORKER__MAX_CRASHES",
            "0",
            "worker.max_crashes is 0",
        ),
        (
            "REVERTD_TOPOLOGY__DEAD_LETTER_QUEUE",
            "usage.reverts",
            "two queues would be named",
        ),
        (
            "REVERTD_TOPOLOGY__REPLY_EXCHANGE",
            "amq.topic",
            "topology.reply_exchange",
        ),
    ] {
        let message = refused(&[(name, value)]);
        assert!(message.contains(said), "{name}={value}: {message}");
    }
}

#[test]
fn the_bounds_of_groups_are_checked() {
    for (name, value, said) in [
        ("REVERTD_AMQP__MAX_GROUP", "0", "amqp.max_group is 0"),
        ("REVERTD_AMQP__MAX_GROUP", "65536", "amqp.max_group"),
        ("REVERTD_AMQP__MAX_GROUP", "many", "amqp.max_group"),
        (
            "REVERTD_AMQP__MAX_GROUP_BYTES",
            "0",
            "amqp.max_group_bytes is 0",
        ),
        (
            "REVERTD_AMQP__MAX_GROUP_BYTES",
            "big",
            "amqp.max_group_bytes",
        ),
    ] {
        let message = refused(&[(name, value)]);
        assert!(message.contains(said), "{name}={value}: {message}");
    }
}

#[test]
fn the_effective_configuration_is_shown_exactly() {
    let settings = load(&[("REVERTD_AMQP__MAX_MESSAGE_BYTES", "100000")]).expect("valid");
    let shown = settings.to_toml();
    for line in [
        "max_message_bytes = \"100000\"",
        "prefetch = 1000",
        "pool_size = 5",
        "work_queue_max_bytes = \"1GiB\"",
        "delays = [\"1s\", \"5s\", \"30s\", \"2m\", \"10m\"]",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
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

#[test]
fn reply_to_cannot_name_a_rung() {
    let settings = load(&[("REVERTD_AMQP__REPLY_TO_PATTERN", ".*")]).expect("valid");
    for (queue, may) in [
        ("replies.a", true),
        ("amq.rabbitmq.reply-to.abc", true),
        ("usage.reverts", false),
        ("usage.reverts.dead", false),
        ("usage.reverts.retry.5s", false),
        ("usage.reverts.retry.7s", false),
        ("usage.reverts.retryers", true),
    ] {
        assert_eq!(settings.may_reply_to(queue), may, "{queue}");
    }
}

#[test]
fn secrets_are_never_shown() {
    for url in [
        "postgres://me:hunter2@db/x",
        "postgres://me:hunter2@db1:1,db2:2/x?target_session_attrs=read-write",
        "postgres://me@db/x?password=hunter2",
        "postgres://me:1/hunter2@db/x",
        "host=db user=me password=hunter2 dbname=x",
        "host=db user=me password='hunter2 and more' dbname=x",
        "host=db user=me password = hunter2",
    ] {
        let settings = load(&[
            ("REVERTD_DATABASE__URL", url),
            ("REVERTD_AMQP__URL", "amqp://me:hunter2@mq/%2f"),
        ])
        .expect("valid");
        let shown = format!("{}\n{settings:?}", settings.to_toml());
        assert!(!shown.contains("hunter2"), "{url}: {shown}");
    }
    let message = refused(&[("REVERTD_AMQP__URL", "amqp://me:hunter2@:5672")]);
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn the_default_heartbeat_is_15_seconds() {
    for (given, connected) in [
        ("amqp://mq/%2f", "amqp://mq/%2f?heartbeat=15"),
        ("amqp://mq/%2f?heartbeat=60", "amqp://mq/%2f?heartbeat=60"),
        (
            "amqp://mq/%2f?frame_max=8192",
            "amqp://mq/%2f?frame_max=8192&heartbeat=15",
        ),
    ] {
        let settings = load(&[("REVERTD_AMQP__URL", given)]).expect("valid");
        let url = settings.amqp.url.iter().next().expect("one");
        assert_eq!(url.secret(), connected);
        assert_eq!(url.to_string(), given);
    }
}

#[test]
fn telemetry_is_off_unless_its_addresses_are_set() {
    let settings = load(&[]).expect("valid");
    assert!(settings.telemetry.listen.is_none() && settings.telemetry.otlp_endpoint.is_none());
    let listen = "REVERTD_TELEMETRY__LISTEN";
    let set = load(&[(listen, "[::1]:9464")]).expect("valid").telemetry;
    assert_eq!(set.listen.map(|listen| listen.0.port()), Some(9464));
    for error in ["9464", "localhost:9464", "127.0.0.1", ""] {
        let said = refused(&[(listen, error)]);
        assert!(said.contains("telemetry.listen: "), "{said}");
        assert!(said.contains("127.0.0.1:7400"), "{said}");
    }
    let endpoint = "REVERTD_TELEMETRY__OTLP_ENDPOINT";
    for right in [
        "http://localhost:4318",
        "http://[::1]:4318/",
        "http://collector/otlp",
    ] {
        let set = load(&[(endpoint, right)]).expect("valid").telemetry;
        let url = set.otlp_endpoint.expect("set").to_string();
        assert_eq!(url, right.trim_end_matches('/'));
    }
    for (error, why) in [
        ("https://localhost:4318", "sends spans without TLS"),
        ("localhost:4318", "such as http://localhost:4318"),
        (
            "http://user:secret@localhost:4318",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            "http://localhost:4318?key=secret",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        ("grpc://localhost:4317", "such as http://localhost:4318"),
    ] {
        let said = refused(&[(endpoint, error)]);
        assert!(said.contains("telemetry.otlp_endpoint: "), "{said}");
        assert!(said.contains(why) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn an_invalid_address_does_not_show_its_password() {
    for address in [
        "host=db\nuser=x\npassword=hunter2",
        "host=db\tuser=x\tpassword=hunter2",
        "host=db password=hunter2\\ user=hunter2",
        "host=db password='a hunter2' user=x",
        "postgres://u:12#hunter2@h/d",
        "postgres://u:?hunter2@h/d",
        "postgres://u:a/hunter2@h/d",
        "postgres://u:hunter2@one:1,two:2/d",
    ] {
        let environment = [("REVERTD_DATABASE__URL".to_owned(), address.to_owned())];
        let settings = Settings::load_from(None, environment).expect("accepted");
        for shown in [
            settings.to_toml(),
            format!("{:?}", settings.database.url),
            settings.database.url.to_string(),
        ] {
            assert!(!shown.contains("hunter2"), "{address}: {shown}");
        }
    }
    let error = load_file("[amqp]\nurl = \"amqp://worker:hunter2@host\n").expect_err("not TOML");
    assert!(
        error.contains("line 2") && !error.contains("hunter2"),
        "{error}"
    );
}
