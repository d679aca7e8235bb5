//! Valid and invalid values, each with its error.

use super::*;

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let settings = load(&[("REVERTD_TOPOLOGY__WORK_QUEUE", "123")]).expect("valid");
    assert_eq!(settings.topology.work_queue.as_str(), "123");
    let one = load(&[("REVERTD_RETRY__DELAYS", "5s")]).expect("valid");
    assert_eq!(one.retry.delays.len(), 1);
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
