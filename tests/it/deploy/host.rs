//! The files for a host without a cluster: units, sample configurations, and the compose stack's
//! logins.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::keys;
use crate::operator::permissions::page;

pub const WORKER: &str = include_str!("../../../config/systemd/revertd-worker.service");
pub const GATEWAY: &str = include_str!("../../../config/systemd/revertd-gateway.service");

/// The values that a unit gives a key, such as `LoadCredential`.
pub fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_two_units_share_no_file_and_no_port() {
    let of = |unit: &'static str| -> BTreeSet<&str> {
        let environment = values(unit, "Environment");
        let credentials = values(unit, "LoadCredential");
        let files = credentials.iter().filter_map(|one| one.split_once(':'));
        environment
            .iter()
            .filter_map(|set| set.split_once('='))
            .chain(files)
            .map(|(_, value)| value)
            .filter(|value| value.starts_with("/etc/") || value.contains(':'))
            .collect()
    };
    let (worker, gateway) = (of(WORKER), of(GATEWAY));
    assert_eq!(
        (worker.len(), gateway.len()),
        (4, 3),
        "{worker:?} {gateway:?}"
    );
    assert!(worker.is_disjoint(&gateway), "{worker:?} {gateway:?}");
    for unit in [WORKER, GATEWAY] {
        let environment = values(unit, "Environment");
        let listens = |set: &&str| set.starts_with("REVERTD_TELEMETRY__LISTEN=127.0.0.1:");
        assert!(environment.iter().any(listens), "{environment:?}");
    }
}

/// A sample configuration and the folder of its password files.
fn sample(name: &str) -> (toml::Table, BTreeSet<String>) {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/config/systemd/{name}.toml"));
    let table: toml::Table = toml::from_str(&text.expect("it is there")).expect("TOML");
    let of_section = |(section, keys): (&String, &toml::Value)| -> Vec<String> {
        let keys = keys.as_table().expect("a section").keys();
        keys.map(|key| format!("{section}.{key}")).collect()
    };
    let named = table.iter().flat_map(of_section).collect();
    (table, named)
}

#[test]
fn sample_configurations_name_valid_keys_and_files() {
    for (name, unit) in [("worker", WORKER), ("gateway", GATEWAY), ("migrator", "")] {
        let (table, named) = sample(name);
        assert!(named.is_subset(&keys()), "{name}: {named:?}");
        for section in table.values() {
            let Some(file) = section.get("password_file") else {
                continue;
            };
            let file = file.as_str().expect("a path");
            assert!(file.starts_with(&format!("/etc/revertd/{name}/")), "{file}");
            let handed = values(unit, "LoadCredential");
            assert!(
                name == "migrator" || handed.iter().any(|one| one.ends_with(file)),
                "{file}"
            );
            let url = section["url"].as_str().expect("an address");
            assert_eq!(
                url::Url::parse(url).expect("a URL").password(),
                None,
                "{url}"
            );
        }
    }
}

#[test]
fn compose_logins_have_the_documented_permissions() {
    let text = include_str!("../../../config/compose/definitions.json");
    let definitions: Value = serde_json::from_str(text).expect("JSON");
    let documented = page::sets();
    // The client waits for its event in a queue that the broker names.
    for (login, role) in [
        ("worker", "worker"),
        ("gateway", "gateway"),
        ("client", "submitter"),
    ] {
        let permissions = definitions["permissions"].as_array().expect("a list");
        let found = permissions.iter().find(|given| given["user"] == login);
        let given = found.expect("it has permissions");
        let given = ["configure", "write", "read"].map(|what| given[what].as_str());
        assert_eq!(
            given.map(|what| what.expect("text")),
            documented[role],
            "{login}"
        );
    }
    let stack = include_str!("../../../docker-compose.yml");
    for login in ["worker", "gateway", "client"] {
        let address = format!("amqp://{login}:${{REVERTD_DEV_PASSWORD:?}}@rabbitmq:5672/%2f");
        assert_eq!(stack.matches(&address).count(), 1, "{login}");
    }
}

#[test]
fn the_compose_file_has_no_password_and_full_tags() {
    let stack = include_str!("../../../docker-compose.yml");
    assert!(
        !stack.contains("REVERTD_DEV_PASSWORD:-"),
        "it has a default"
    );
    let file = include_str!("../../../Dockerfile");
    let images = stack.lines().chain(file.lines()).filter_map(|line| {
        let line = line.trim_start();
        let image = line
            .strip_prefix("image: ")
            .or(line.strip_prefix("FROM "))?;
        image
            .split(' ')
            .next()
            .filter(|image| !["revertd", "scratch"].contains(image))
    });
    let images: Vec<_> = images.collect();
    assert_eq!(images.len(), 6, "{images:?}");
    for image in images {
        let tag = image.rsplit(':').next().expect("a part");
        let version = tag
            .trim_start_matches('v')
            .split('-')
            .next()
            .expect("a part");
        let numbers: Vec<_> = version.split('.').collect();
        let whole = numbers.iter().all(|number| number.parse::<u32>().is_ok());
        // PostgreSQL's versions have two numbers.
        assert!(whole && numbers.len() >= 2, "{image}");
    }
}
