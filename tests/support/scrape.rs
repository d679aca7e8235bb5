//! Reads a worker's telemetry as Prometheus and a prober read it.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{WorkerProcess, eventually};

/// Has a process serve its telemetry on a port that the system chooses.
pub const LISTEN: (&str, &str) = ("TELEMETRY__LISTEN", "127.0.0.1:0");

/// The address of a process's telemetry.
#[derive(Clone, Debug)]
pub struct Telemetry {
    address: String,
}

impl Telemetry {
    /// That of a worker that was started with [`LISTEN`].
    pub async fn of(worker: &mut WorkerProcess) -> Self {
        worker.logged("serving /metrics").await;
        let log = worker.log();
        let address = Regex::new(r"serving /metrics.*address=(\S+)").expect("a pattern");
        let found = address.captures(&log).expect("it says where");
        Self {
            address: found[1].to_owned(),
        }
    }

    /// The address as `telemetry.listen` has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }

    pub async fn metrics(&self) -> Page {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Page::read(&text)
    }

    /// Whether it is ready, and else why not.
    pub async fn readiness(&self) -> Result<(), String> {
        let (status, text) = self.get("/readyz").await;
        let body: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(text.lines().count(), 1, "{text}");
        match status {
            200 => {
                assert_eq!(body["ready"], true);
                Ok(())
            }
            503 => {
                assert_eq!(body["ready"], false);
                Err(body["why"].as_str().expect("a reason").to_owned())
            }
            other => panic!("{other}: {text}"),
        }
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually("it is ready", async || self.readiness().await.is_ok()).await;
    }

    /// Waits until it is not, for a reason that begins like that.
    pub async fn not_ready(&self, why: &str) {
        eventually(&format!("it is not ready: {why}"), async || {
            self.readiness()
                .await
                .is_err_and(|said| said.starts_with(why))
        })
        .await;
    }

    /// Waits until a series has that value.
    pub async fn shows(&self, name: &str, labels: &[(&str, &str)], value: i64) {
        let what = format!("{name} {labels:?} is {value}");
        eventually(&what, async || {
            self.metrics().await.count(name, labels) == value
        })
        .await;
    }
}

/// A page of metrics.
#[derive(Debug)]
pub struct Page {
    pub text: String,
    series: Vec<Series>,
    kinds: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    fn read(text: &str) -> Self {
        let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).expect("a pattern");
        let mut page = Self {
            text: text.to_owned(),
            series: Vec::new(),
            kinds: BTreeMap::new(),
        };
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                page.kinds.insert(name.to_owned(), kind.to_owned());
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = label.captures_iter(labels);
            page.series.push(Series {
                name: name.to_owned(),
                labels: labels
                    .map(|found| (found[1].to_owned(), found[2].to_owned()))
                    .collect(),
                value: value.parse().expect("a number"),
            });
        }
        page
    }

    /// The sum of the series of that name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |series: &&Series| {
            let has = |(key, value): &(&str, &str)| {
                series.labels.get(*key).map_or("", String::as_str) == *value
            };
            series.name == name && labels.iter().all(has)
        };
        self.series
            .iter()
            .filter(fits)
            .map(|series| series.value)
            .sum()
    }

    /// The same as a whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let sum = self.sum(name, labels);
        sum.to_string().parse().expect("a whole number")
    }

    /// Names of the series, as `PromQL` knows them.
    pub fn names(&self) -> BTreeSet<String> {
        self.series
            .iter()
            .map(|series| series.name.clone())
            .collect()
    }

    /// Names of the metrics, as they are declared, and their types.
    pub fn metrics(&self) -> &BTreeMap<String, String> {
        &self.kinds
    }

    /// The values that a label has anywhere.
    pub fn values(&self, label: &str) -> BTreeSet<String> {
        let values = self
            .series
            .iter()
            .filter_map(|series| series.labels.get(label));
        values.cloned().collect()
    }
}
