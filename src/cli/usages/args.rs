//! The arguments of `revertd usages`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use uuid::Uuid;

use crate::cli::output::Output;
use crate::cli::time_span::timestamp;
use crate::domain::request::{NAME_MAX_CHARS, REASON_MAX_CHARS, Reference};
use crate::ledger::admin::usages::{UsageFilter, UsageScope};

/// Longest name of a batch, in bytes: an id is the batch, the usage and an amount, and has at most
/// 255 bytes.
const BATCH_MAX_BYTES: usize = 100;

/// The requests name the account of each usage, and ask for all that is not reverted yet. Give the
/// file to `revertd submit --file`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true))]
pub struct UsagesArgs {
    /// Usages of this org's accounts, disabled ones included. An org is given by id or name.
    #[arg(long, value_name = "ID|NAME", group = "scope", value_parser = org)]
    org: Option<Reference>,
    /// Usages of this billing account.
    #[arg(long, value_name = "UUID", group = "scope")]
    account: Option<Uuid>,
    /// Only usages written then or later: a time such as 2026-11-25T08:00:00Z, or how long ago,
    /// such as 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    since: Option<Timestamp>,
    /// Only usages written before this time: a time such as 2026-11-25T08:00:00Z, or an age such as
    /// 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    until: Option<Timestamp>,
    /// Only usages of this source; '' for usages without a source.
    #[arg(long)]
    source: Option<String>,
    /// Only usages whose metadata has this key with this value: a text, a number, true or false.
    /// May be repeated; all must match.
    #[arg(long, value_name = "KEY=VALUE", value_parser = metadata)]
    metadata: Vec<(String, String)>,
    /// Only the earliest usages, at most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The reason of each request; stored with the entry.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Beginning of each request's id, such as the name of the incident. Under the same batch the
    /// same usage has the same id in every run.
    #[arg(long, value_name = "NAME", value_parser = batch, default_value = "usages")]
    pub batch: String,
    /// Write the requests to this file instead of standard output. The file must not exist. It
    /// appears when it is complete.
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub file: Option<PathBuf>,
    /// Print how many usages there are, and write no requests.
    #[arg(long)]
    pub dry_run: bool,
    /// Format of the counts.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl UsagesArgs {
    /// A contradiction between arguments that are valid one by one.
    pub fn contradiction(&self) -> Option<&'static str> {
        let times = self.since.zip(self.until);
        if times.is_some_and(|(since, until)| since >= until) {
            return Some("--since must be before --until");
        }
        let mut keys = BTreeSet::new();
        let is_repeated = !self.metadata.iter().all(|(key, _)| keys.insert(key));
        is_repeated.then_some("--metadata names a key twice; run the command once for each value")
    }

    /// The filter; `None` without an org and an account, which the parser refuses.
    pub fn filter(&self) -> Option<UsageFilter> {
        let org = self.org.clone().map(UsageScope::Org);
        Some(UsageFilter {
            scope: org.or(self.account.map(UsageScope::Account))?,
            since: self.since,
            until: self.until,
            source: self.source.clone(),
            metadata: self.metadata.clone(),
            limit: self.limit,
        })
    }
}

fn org(text: &str) -> Result<Reference, String> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(Reference::Id(id));
    }
    let length = text.chars().count();
    if length == 0 || length > NAME_MAX_CHARS || text.chars().any(char::is_control) {
        return Err(
            "must be the id of an org, or its name of 1 to 255 characters without control \
             characters"
                .into(),
        );
    }
    Ok(Reference::Name(text.to_owned()))
}

fn metadata(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or("must be a key, = and a value, such as job=render-7")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// As the field `reason` of a request.
fn reason(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length == 0 || length > REASON_MAX_CHARS || text.chars().any(char::is_control) {
        return Err("must have 1 to 512 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}

fn batch(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > BATCH_MAX_BYTES || text.chars().any(char::is_control) {
        return Err("must be a name of 1 to 100 bytes without control characters".into());
    }
    Ok(text.to_owned())
}

fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let ending = path.extension();
    if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("csv")) {
        return Err(
            "the file has a JSON object per line, and submit reads .csv as a table; name it \
             .ndjson"
                .into(),
        );
    }
    if path.file_name().is_none() {
        return Err("must name a file".into());
    }
    Ok(path)
}
