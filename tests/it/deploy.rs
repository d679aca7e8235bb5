//! The files that come with the program: manifest, units, manual pages, completions, and the pages
//! that name its commands and keys.

use std::process::Output;
use std::time::Duration;

use revertd::config::Settings;
use serde_json::Value;

use super::support::*;

mod archive;
mod host;
mod names;
mod systemd;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut program = Program::new(arguments);
    // A packager has no configuration, or one that must not matter.
    program.env("REVERTD_AMQP__PREFETCH", "none");
    let Output {
        status,
        stdout,
        stderr,
    } = program.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        status.code().expect("no signal"),
        text(stdout),
        text(stderr),
    )
}

#[test]
fn completions_are_printed_without_configuration() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, script, said) = run(&["completions", shell]);
        assert_eq!((status, said.as_str()), (0, ""), "{shell}");
        for command in ["worker", "gateway", "submit", "grants"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).0, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man/man1");
    let path = pages.to_str().expect("UTF-8");
    assert_eq!(run(&["man", path]), (0, String::new(), String::new()));
    let mut wanted = vec![("revertd".to_owned(), names::definition())];
    while let Some((name, command)) = wanted.pop() {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).expect("a page");
        assert!(page.contains(".SH NAME"), "{name}");
        let below = command
            .get_subcommands()
            .filter(|below| below.get_name() != "help");
        wanted.extend(below.map(|below| (format!("{name}-{}", below.get_name()), below.clone())));
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let (status, _, said) = run(&["man", file.to_str().expect("UTF-8")]);
    assert_eq!(status, 1);
    assert!(said.contains("cannot create"), "{said}");
}

/// The objects of config/kubernetes.yaml, by kind and name.
fn objects() -> Vec<Value> {
    serde_saphyr::from_multiple(include_str!("../../config/kubernetes.yaml")).expect("YAML")
}

fn object(kind: &str, name: &str) -> Value {
    objects()
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .expect("it is there")
}

/// The configuration of the manifest's processes.
pub fn configuration_of_the_cluster() -> toml::Table {
    let map = object("ConfigMap", "revertd");
    let text = map["data"]["revertd.toml"].as_str().expect("text");
    toml::from_str(text).expect("TOML")
}

#[test]
fn the_manifest_configuration_is_valid() {
    let configuration = configuration_of_the_cluster();
    // The configuration is valid, too.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), configuration.to_string()).expect("written");
    Settings::load_from(Some(file.path()), []).expect("a configuration");
    let timeout = configuration["worker"]["shutdown_timeout"].as_str();
    let timeout = humantime::parse_duration(timeout.expect("text")).expect("a duration");
    for name in ["revertd-worker", "revertd-gateway"] {
        let deployment = object("Deployment", name);
        let pod = &deployment["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("seconds");
        let margin = Duration::from_secs(grace).checked_sub(timeout);
        assert!(margin >= Some(Duration::from_secs(10)), "{name}");
    }
    let scaler = object("ScaledObject", "revertd-worker");
    let defaults: toml::Table = toml::from_str(revertd::config::DEFAULTS).expect("TOML");
    let queue = &scaler["spec"]["triggers"][0]["metadata"]["queueName"];
    assert_eq!(
        queue.as_str(),
        defaults["topology"]["work_queue"].as_str(),
        "the queue that is consumed"
    );
}

#[test]
fn pods_have_no_privileges_beyond_their_needs() {
    let pods: Vec<Value> = objects()
        .into_iter()
        .filter(|object| {
            ["Deployment", "Job"]
                .map(Value::from)
                .contains(&object["kind"])
        })
        .map(|object| object["spec"]["template"]["spec"].clone())
        .collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for container in pod["containers"].as_array().expect("containers") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["memory"].is_string());
            for variable in container["env"].as_array().expect("variables") {
                let value = variable["value"].as_str().expect("text, not a secret");
                let has_password = url::Url::parse(value).is_ok_and(|url| url.password().is_some());
                assert!(!has_password, "{value}");
            }
        }
    }
}

#[test]
fn pods_may_reach_only_the_servers_and_dns() {
    let mut reached = Vec::new();
    for policy in objects()
        .iter()
        .filter(|object| object["kind"] == "NetworkPolicy")
    {
        for rule in policy["spec"]["egress"].as_array().into_iter().flatten() {
            let to = rule["to"].as_array().expect("whom it leads to");
            assert!(!to.is_empty(), "{policy}");
            for whom in to {
                // A policy without an address and without pods is one for everybody.
                let block = whom["ipBlock"]["cidr"].as_str();
                let pods = &whom["podSelector"]["matchLabels"];
                assert!(block.is_some_and(|cidr| cidr.ends_with("/32")) || pods.is_object());
            }
            let ports = rule["ports"].as_array().expect("ports");
            reached.extend(ports.iter().filter_map(|port| port["port"].as_u64()));
        }
    }
    reached.sort_unstable();
    assert_eq!(reached, [53, 53, 5432, 5671]);
}

#[test]
fn the_manifest_runs_no_program_that_the_image_lacks() {
    for deployment in objects()
        .iter()
        .filter(|object| object["kind"] == "Deployment")
    {
        for container in deployment["spec"]["template"]["spec"]["containers"]
            .as_array()
            .expect("containers")
        {
            assert_eq!(container["command"], Value::Null);
            assert_eq!(container["lifecycle"]["preStop"]["exec"], Value::Null);
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container[probe]["httpGet"].is_object(), "{probe}");
            }
        }
    }
}
