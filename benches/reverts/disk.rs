//! Disk space that a revert takes in PostgreSQL.

use anyhow::Result;

use crate::deadline::{PATIENCE, within};
use crate::load::Load;
use crate::report::Section;
use crate::run::Bench;
use crate::stage::Stage;
use crate::table::Table;

/// Sizes of the two tables and of each of their indexes.
const SIZES: &str = "
    SELECT c.relname::text, c.relkind = 'i', pg_relation_size(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE coalesce(i.indrelid, c.oid) IN ('billing_transactions'::regclass,
        'revertd.outcomes'::regclass)
    ORDER BY coalesce(i.indrelid, c.oid), c.relkind DESC, c.relname";

/// Bytes written to the write-ahead log so far.
const LOG: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";

pub async fn measure(bench: &Bench) -> Result<Section> {
    let stage = bench.stage(&[]).await?;
    let first = Load::good(bench.requests);
    let second = first.next(bench.requests);
    stage.seed(Load::good(2 * bench.requests)).await?;
    let before = sizes(&stage).await?;
    // The seed ended with a checkpoint, so the first change of each page logs the whole page.
    let mut logged = vec![log(&stage).await?];
    for load in [first, second] {
        bench.work_off(&stage, load, 1).await?;
        logged.push(log(&stage).await?);
    }
    let after = sizes(&stage).await?;
    stage.clean().await?;
    let mut table = Table::new(["", "bytes a revert"]);
    let mut all = 0.0;
    for ((name, index, before), (_, _, after)) in before.iter().zip(&after) {
        let bytes = each(after - before, 2 * bench.requests);
        all += bytes;
        let kind = if *index { "index" } else { "table" };
        table.row([format!("{kind} {name}"), format!("{bytes:.0}")]);
    }
    table.row([
        "tables and indexes together".to_owned(),
        format!("{all:.0}"),
    ]);
    let names = [
        "write-ahead log, right after a checkpoint",
        "write-ahead log, with no checkpoint between",
    ];
    for (name, log) in names.into_iter().zip(logged.windows(2)) {
        let bytes = each(log[1] - log[0], bench.requests);
        table.row([name.to_owned(), format!("{bytes:.0}")]);
    }
    let mut section = Section::new("disk", "Disk", table);
    section.notes.push(format!(
        "A revert is two rows of the ledger and one outcome. Growth of the files over {} reverts; \
        the log over the first and the second half of them, since after a checkpoint the first \
        change of a page is logged with the whole page (`full_page_writes`).",
        crate::table::number((2 * bench.requests).into())
    ));
    Ok(section)
}

async fn sizes(stage: &Stage) -> Result<Vec<(String, bool, i64)>> {
    let rows = within(PATIENCE, "sizes", stage.db.query(SIZES, &[])).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect())
}

async fn log(stage: &Stage) -> Result<i64> {
    Ok(within(PATIENCE, "the log", stage.db.query_one(LOG, &[]))
        .await?
        .get(0))
}

/// Bytes per revert. The number of bytes is far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "files of less than a petabyte")]
fn each(bytes: i64, reverts: u32) -> f64 {
    bytes as f64 / f64::from(reverts)
}
