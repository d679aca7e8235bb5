//! The dashboard, the alerts and the page on metrics name exactly the metrics that a worker
//! exports. The runbook has every alert and every code of the log.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use regex::Regex;

use crate::support::scrape::{LISTEN, Page, Telemetry};
use crate::support::*;

fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of metrics in `PromQL`.
fn named(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:revertd|messaging|db)_[a-z_]+\b").expect("a pattern");
    let label = Regex::new(
        r"^(messaging|db)_(system|operation|destination|client_connection_(state|pool_name)$)",
    )
    .expect("a pattern");
    let names = name.find_iter(text).map(|found| found.as_str().to_owned());
    names.filter(|name| !label.is_match(name)).collect()
}

/// Pages of a worker and of a gateway.
async fn pages() -> [Page; 2] {
    let (env, mut worker) = TestEnv::with_worker_set(&[LISTEN]).await;
    let telemetry = Telemetry::of(&mut worker).await;
    eventually("the queues were looked at", async || {
        let page = telemetry.metrics().await;
        page.text.contains("revertd_queue_messages{")
    })
    .await;
    let page = telemetry.metrics().await;
    let mut gateway = env.start_gateway().await;
    let telemetry = Telemetry::of(&mut gateway.process).await;
    let pages = [page, telemetry.metrics().await];
    drop((worker, gateway));
    env.teardown().await;
    pages
}

#[tokio::test]
async fn metrics_are_exported_and_documented() {
    let pages = pages().await;
    let exported: BTreeSet<_> = pages.iter().flat_map(Page::names).collect();
    let dashboard = file("config/observability/grafana/dashboards/revertd.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
    let rules = file("config/observability/revertd.rules.yml");
    for (of, text) in [("the dashboard", &dashboard), ("an alert", &rules)] {
        let named = named(text);
        assert!(named.len() > 8, "{of}: {named:?}");
        for name in named {
            assert!(
                exported.contains(&name),
                "{of} names {name}, which nobody exports"
            );
        }
    }
    let page = file("docs/reference/metrics.md");
    let documented =
        Regex::new(r"(?m)^\| `((?:revertd|messaging|db)_[a-z_]+)`").expect("a pattern");
    let documented: BTreeSet<_> = documented
        .captures_iter(&page)
        .map(|row| row[1].to_owned())
        .collect();
    // A counter's series end in _total, and so its row does.
    let declared = pages.iter().flat_map(Page::metrics);
    // Those of HTTP servers are named in the text.
    let (of_http, declared): (Vec<_>, Vec<_>) =
        declared.partition(|(name, _)| name.starts_with("http_"));
    assert!(!of_http.is_empty(), "the gateway has metrics of HTTP");
    for (name, _) in of_http {
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not documented"
        );
    }
    let declared = declared.into_iter();
    let declared = declared.map(|(name, kind)| {
        let total = kind == "counter" && !name.ends_with("_total");
        if total {
            format!("{name}_total")
        } else {
            name.clone()
        }
    });
    assert_eq!(
        documented,
        declared.collect(),
        "rows of the page on metrics, and what is exported"
    );
}

#[test]
fn every_alert_has_a_runbook_section_and_a_test() {
    let rules = file("config/observability/revertd.rules.yml");
    let runbook = file("docs/operations/runbook.md");
    let tests = file("config/observability/revertd.rules.test.yml");
    let alert = Regex::new(r"(?s)- alert: (\w+)\n.*?runbook_url: (\S+)\n").expect("a pattern");
    let mut count = 0;
    for found in alert.captures_iter(&rules) {
        let name = &found[1];
        let section = format!("docs/operations/runbook.md#{}", name.to_lowercase());
        assert_eq!(found[2], section);
        assert!(
            runbook.contains(&format!("\n### {name}\n")),
            "{name} has no section"
        );
        assert!(tests.contains(name), "{name} has no test");
        count += 1;
    }
    assert_eq!(count, rules.matches("- alert: ").count());
    assert_eq!(
        count,
        runbook.matches("\n### Revertd").count(),
        "sections without an alert"
    );
}
