//! Checks that the migrations are applied and that their objects exist and are in effect.

use std::collections::BTreeMap;

use super::questions::answered;
use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::connection::session::Session;
use crate::ledger::schema::migrate::{HISTORY, latest, migrations};
use crate::ledger::schema::objects;
use crate::ledger::schema::objects::ObjectScope;

/// The schema's version compared with this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// Migrations are missing.
    Older,
    Same,
    /// A later release migrated it.
    Newer,
}

pub async fn check(session: &Session, settings: &Settings, checks: &mut Checks) {
    let age = history(session, settings, checks).await;
    objects(session, age, checks).await;
}

/// Checks that all migrations are applied and none is edited. `None` if the history cannot be read.
async fn history(session: &Session, settings: &Settings, checks: &mut Checks) -> Option<Age> {
    let id = "database-schema";
    let query = format!("SELECT version, name, checksum FROM {HISTORY}");
    let rows = answered(id, session.rows(&query, &[]).await, checks)?;
    let applied: BTreeMap<i32, String> = rows.iter().map(|row| (row.get(0), row.get(2))).collect();
    let (mut missing, mut edited) = (Vec::new(), Vec::new());
    for migration in migrations() {
        match applied.get(&migration.version()) {
            None => missing.push(migration.to_string()),
            Some(checksum) if *checksum == migration.checksum().to_string() => {}
            Some(_) => edited.push(migration.to_string()),
        }
    }
    let newest = applied.keys().max().copied().unwrap_or_default();
    let age = match (missing.is_empty(), newest > latest()) {
        (false, _) => Age::Older,
        (true, false) => Age::Same,
        (true, true) => Age::Newer,
    };
    if !edited.is_empty() {
        checks.error(
            id,
            format!(
                "applied migrations differ from those of this program: {}",
                edited.join(", ")
            ),
            "use the revertd that migrated this schema, or a later release; \
             an applied migration is never edited",
        );
    } else if missing.is_empty() {
        let newer = match age {
            Age::Newer => ", newer than this program's",
            Age::Older | Age::Same => "",
        };
        checks.ok(id, format!("version {newest}{newer}"));
    } else {
        let seen = format!("migrations are missing: {}", missing.join(", "));
        if settings.database.migrate_on_start {
            checks.warning(
                id,
                seen,
                "run `revertd migrate`, or start `revertd worker`, which migrates",
            );
        } else {
            checks.error(id, seen, "run `revertd migrate`");
        }
    }
    Some(age)
}

/// Checks the objects. If migrations are missing, their objects are missing too, and must not be
/// created manually.
async fn objects(session: &Session, age: Option<Age>, checks: &mut Checks) {
    let id = "database-objects";
    if age == Some(Age::Older) {
        let why = "constraints, indexes, triggers and functions are checked once \
                   the schema is up to date";
        checks.skipped_until(id, why, "run `revertd migrate`");
        return;
    }
    let newer = age != Some(Age::Same);
    let looked = session.answered(objects::schema_diff(
        &session.client,
        ObjectScope::All,
        newer,
    ));
    let Some(troubles) = answered(id, looked.await, checks) else {
        return;
    };
    if troubles.is_empty() {
        let count = objects::count();
        checks.ok(
            id,
            format!(
                "all {count} constraints, columns, indexes, triggers and functions are in effect"
            ),
        );
    }
    for (seen, remedy) in troubles {
        checks.error(id, seen, remedy);
    }
}
