use std::time::Duration;

use super::*;

mod secrets;
mod sources;
mod transport;
mod values;

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
