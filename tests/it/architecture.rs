//! The boundaries between modules (docs/development/architecture.md), what no file may contain, and
//! the names of tests.

use std::fs;
use std::path::{Path, PathBuf};

mod test_names;

fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                files.push((path, text));
            }
        }
    }
    files
}

/// The first part of a file's path below `src`, without its ending.
fn module(path: &Path) -> String {
    let below = path
        .strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
        .expect("below src");
    let first = below
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code without comment lines: a comment may name anything.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn each_module_names_only_allowed_crates() {
    let boundaries: [(&[&str], &[&str]); 24] = [
        (&["lapin", "amq_protocol", "async_rs"], &["broker"]),
        (&["tokio_postgres_rustls"], &["ledger"]),
        (&["rustls"], &["tls", "ledger", "gateway", "http_server"]),
        (&["tokio_rustls"], &["tls", "gateway", "http_server"]),
        (&["rustls_native_certs"], &["tls"]),
        (&["crate::tls"], &["broker", "ledger"]),
        (
            &["tokio_postgres", "deadpool_postgres", "refinery"],
            &["ledger"],
        ),
        (&["backoff::"], &["patience"]),
        (&["fail::"], &["seam"]),
        (
            &["clap::", "clap_complete", "clap_mangen"],
            &["cli", "main"],
        ),
        (&["axum::"], &["gateway", "telemetry", "http_server"]),
        (
            &["hyper::", "hyper_util"],
            &["http_server", "telemetry", "broker"],
        ),
        (&["base64::"], &["gateway", "broker", "cli"]),
        (&["tower_http", "moka::", "ring::hmac"], &["gateway"]),
        (&["tokio_io_timeout"], &["http_server"]),
        (&["crate::http_server"], &["gateway", "telemetry"]),
        (&["rustix::"], &["cli"]),
        (&["icu_properties"], &["printable"]),
        (&["prometheus_client", "opentelemetry"], &["telemetry"]),
        (&["crate::ledger"], &["worker", "cli"]),
        (&["crate::broker"], &["worker", "gateway", "cli"]),
        (&["crate::telemetry"], &["worker", "gateway", "cli"]),
        (&["crate::worker"], &["cli"]),
        (&["csv::", "indicatif"], &["cli"]),
    ];
    for (path, text) in sources() {
        let (module, code) = (module(&path), code(&text));
        for (names, modules) in boundaries {
            for name in names {
                // Of the broker's files, only management.rs is an HTTP client.
                let speaks = ["hyper::", "hyper_util", "base64::"].contains(name);
                if speaks && module == "broker" && !path.ends_with("broker/management.rs") {
                    assert!(!code.contains(name), "{} names {name}", path.display());
                }
                // The log filter names targets as text.
                let named = code.contains(name) && !path.ends_with("cli/logs.rs");
                let may = modules.contains(&module.as_str());
                assert!(!named || may, "{} names {name}", path.display());
            }
        }
        let pure = [
            "request",
            "outcome",
            "event",
            "retry",
            "disposition",
            "check",
            "printable",
        ];
        if pure.contains(&module.as_str()) {
            for name in [
                "tokio",
                "async ",
                "std::env",
                "std::fs",
                "Timestamp::now",
                "tracing",
            ] {
                assert!(
                    !code.contains(name),
                    "{} is pure, and names {name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_source_contains_a_stub_or_unwrap() {
    for (path, text) in sources() {
        for name in [
            "todo!",
            "unimplemented!",
            "TODO",
            "FIXME",
            ".unwrap()",
            "unsafe ",
        ] {
            assert!(!code(&text).contains(name), "{} has {name}", path.display());
        }
    }
}
