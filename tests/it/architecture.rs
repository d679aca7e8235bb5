//! The boundaries between modules (docs/development/architecture.md), forbidden content of files,
//! and the names of tests.

use graph::Graph;
use source::Source;

mod graph;
mod line_length;
mod log_codes;
mod messages;
mod source;
mod test_names;

/// The folders that each folder of `src` may import, beside itself.
const LAYERS: [(&str, &[&str]); 10] = [
    ("main", &["cli", "broker", "common"]),
    (
        "cli",
        &[
            "worker",
            "gateway",
            "broker",
            "ledger",
            "telemetry",
            "domain",
            "config",
            "common",
        ],
    ),
    (
        "worker",
        &[
            "broker",
            "ledger",
            "telemetry",
            "domain",
            "config",
            "common",
        ],
    ),
    (
        "gateway",
        &["broker", "telemetry", "domain", "config", "common"],
    ),
    ("broker", &["domain", "config", "common"]),
    ("ledger", &["domain", "config", "common"]),
    ("telemetry", &["domain", "config", "common"]),
    ("config", &["domain", "common"]),
    ("common", &["config"]),
    ("domain", &[]),
];

/// Crates, and the folders and files that may name them.
const CRATES: [(&[&str], &[&str]); 18] = [
    (&["lapin", "amq_protocol", "async_rs"], &["broker"]),
    (
        &[
            "tokio_postgres",
            "deadpool_postgres",
            "refinery",
            "tokio_postgres_rustls",
        ],
        &["ledger"],
    ),
    (&["backoff"], &["common/backoff"]),
    (&["fail"], &["common/failpoint"]),
    (
        &["rustls"],
        &["common/tls", "common/http_server", "ledger", "gateway"],
    ),
    (
        &["tokio_rustls"],
        &["common/tls", "common/http_server", "gateway"],
    ),
    (&["rustls_native_certs"], &["common/tls"]),
    (
        &["hyper", "hyper_util"],
        &["common/http_client", "common/http_server"],
    ),
    (&["axum"], &["common/http_server", "gateway", "telemetry"]),
    (&["tokio_io_timeout"], &["common/http_server"]),
    (&["base64"], &["broker/management", "gateway", "cli"]),
    (&["tower_http", "moka"], &["gateway"]),
    (&["ring"], &["gateway", "broker/raw"]),
    (&["prometheus_client"], &["telemetry"]),
    (
        &[
            "opentelemetry",
            "opentelemetry_http",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
        ],
        &["telemetry"],
    ),
    (&["icu_properties"], &["common/printable"]),
    (&["clap"], &["cli", "main"]),
    (
        &["clap_complete", "clap_mangen", "csv", "indicatif", "rustix"],
        &["cli"],
    ),
];

/// Files outside of `domain` that are pure too.
const PURE: [&str; 2] = ["common/check", "common/printable"];

/// Whether a file is that of the module `path`, or of one of its children.
fn is_in(file: &str, path: &str) -> bool {
    let rest = file.strip_prefix(path);
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The first part of a file's path below `src`, without its ending.
fn folder(file: &str) -> &str {
    file.split(['/', '.']).next().expect("a name")
}

/// Fails with one line for each finding.
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn each_folder_imports_only_layers_below_it() {
    let graph = Graph::new(&source::all());
    let mut findings = Vec::new();
    for (file, uses) in &graph.uses {
        let own = folder(file);
        let layer = LAYERS.iter().find(|(name, _)| *name == own);
        let allowed = layer.map_or(&[][..], |(_, allowed)| allowed);
        for used in uses {
            let other = folder(&used.file);
            if other != own && !allowed.contains(&other) {
                findings.push(format!("{file} imports {} of {}", used.item, used.file));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn each_module_names_only_allowed_crates() {
    let mut findings = Vec::new();
    for source in source::all() {
        for (crates, modules) in CRATES {
            let may = modules.iter().any(|module| is_in(&source.name, module));
            let named = crates.iter().filter(|name| source.names_crate(name));
            findings.extend(
                named
                    .filter(|_| !may)
                    .map(|name| format!("{} names {name}", source.name)),
            );
        }
    }
    assert_none(&findings);
}

#[test]
fn the_domain_is_pure() {
    let is_pure = |source: &Source| {
        let pure = ["domain"].iter().chain(&PURE);
        pure.into_iter().any(|module| is_in(&source.name, module))
    };
    let mut findings = Vec::new();
    for source in source::all().iter().filter(|source| is_pure(source)) {
        for word in ["tokio", "async", "tracing"] {
            if source.tokens.iter().any(|token| token == word) {
                findings.push(format!("{} is pure and names {word}", source.name));
            }
        }
        for path in [["std", "env"], ["std", "fs"], ["Timestamp", "now"]] {
            if source.names_path(&path) {
                let path = path.join("::");
                findings.push(format!("{} is pure and names {path}", source.name));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn no_modules_form_a_circle() {
    let graph = Graph::new(&source::all());
    let mut findings = Vec::new();
    for circle in graph.circles() {
        for file in &circle {
            let uses = graph.uses[*file].iter();
            let inside = uses.filter(|used| circle.contains(used.file.as_str()));
            findings
                .extend(inside.map(|used| format!("{file} uses {} of {}", used.item, used.file)));
        }
    }
    assert_none(&findings);
}

#[test]
fn no_child_uses_an_item_of_its_parent() {
    let graph = Graph::new(&source::all());
    let mut findings = Vec::new();
    for (file, uses) in &graph.uses {
        for used in uses {
            let parent = used.file.trim_end_matches(".rs");
            if file.starts_with(&format!("{parent}/")) || used.file == "lib.rs" {
                findings.push(format!("{file} uses {} of {}", used.item, used.file));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn no_source_contains_a_stub_or_unwrap() {
    let mut findings = Vec::new();
    for source in source::all() {
        let code = source::code(&source);
        let forbidden = [
            "todo!",
            "unimplemented!",
            "TODO",
            "FIXME",
            ".unwrap()",
            "unsafe ",
        ];
        let found = forbidden.iter().filter(|name| code.contains(**name));
        findings.extend(found.map(|name| format!("{} has {name}", source.name)));
    }
    assert_none(&findings);
}
