//! Checks revertd's schema, Frontier's tables, the pause and the grants.

use super::questions::{answered, in_ledger};
use super::server::Server;
use super::{migrated, unlogged};
use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::admin::control;
use crate::ledger::connection::session::Session;

pub async fn check(session: &Session, server: &Server, settings: &Settings, checks: &mut Checks) {
    extension(session, server, settings, checks).await;
    let schema = settings.ledger.schema.as_str();
    let asked = session.rows(unlogged::QUERY, &[&schema]).await;
    if let Some(rows) = answered("database-unlogged", asked, checks) {
        unlogged::check(&rows, checks);
    }
    match session.check_frontier_tables(settings).await {
        Ok(()) => checks.ok("database-frontier", "Frontier's tables fit"),
        Err(_) if settings.ledger.manage && session.lacks_tables(settings).await => checks.warning(
            "database-frontier",
            "Frontier's tables do not exist yet",
            "run `revertd migrate`, which creates them, or start `revertd worker`",
        ),
        Err(error) => checks.failed("database-frontier", error.diagnostic()),
    }
    let Some(has_history) = answered("database-schema", session.has_history().await, checks) else {
        return;
    };
    if !has_history {
        let seen = "the database has no schema revertd";
        if settings.database.migrate_on_start && server.may_create {
            checks.warning(
                "database-schema",
                seen,
                "run `revertd migrate`, or start `revertd worker`, which migrates",
            );
        } else if settings.database.migrate_on_start {
            let (role, database) = (&server.role, &server.database);
            let remedy = format!(
                "GRANT CREATE ON DATABASE {database} TO {role}; or run `revertd migrate` as \
                another role"
            );
            checks.error("database-schema", seen, remedy);
        } else {
            checks.error("database-schema", seen, "run `revertd migrate`");
        }
        return;
    }
    migrated::check(session, settings, checks).await;
    index(session, settings, checks).await;
    pause(session, checks).await;
    grants(session, settings, checks).await;
    platform(session, settings, checks).await;
}

impl Session {
    async fn lacks_tables(&self, settings: &Settings) -> bool {
        let lacks = "SELECT FROM unnest(ARRAY['organizations', 'projects', 'billing_customers', \
                     'billing_transactions']) t WHERE to_regclass('{ledger}.' || t) IS NULL";
        let lacking = in_ledger(self, settings, lacks, &[]).await;
        lacking.is_ok_and(|rows| !rows.is_empty())
    }
}

async fn extension(session: &Session, server: &Server, settings: &Settings, checks: &mut Checks) {
    let id = "database-extension";
    let found = "SELECT quote_ident(n.nspname), has_schema_privilege(n.oid, 'USAGE') \
                 FROM pg_extension e \
                 JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'uuid-ossp'";
    let Some(rows) = answered(id, session.rows(found, &[]).await, checks) else {
        return;
    };
    match rows
        .first()
        .map(|row| (row.get::<_, String>(0), row.get(1)))
    {
        Some((schema, true)) => checks.ok(id, format!("uuid-ossp is in schema {schema}")),
        Some((schema, false)) => checks.error(
            id,
            format!("uuid-ossp is in schema {schema}, which this role may not use"),
            format!("GRANT USAGE ON SCHEMA {schema} TO {};", server.role),
        ),
        None if settings.ledger.manage => checks.warning(
            id,
            "uuid-ossp is not installed yet",
            "run `revertd migrate`, which installs it with Frontier's tables",
        ),
        None => checks.error(
            id,
            "uuid-ossp is not installed",
            "CREATE EXTENSION \"uuid-ossp\";",
        ),
    }
}

async fn index(session: &Session, settings: &Settings, checks: &mut Checks) {
    let id = "database-index";
    match session.index_is_valid(settings).await {
        Ok(true) => checks.ok(id, "the index billing_transactions_revertd_idx is valid"),
        Ok(false) => checks.error(
            id,
            "the index billing_transactions_revertd_idx is missing or invalid",
            "run `revertd migrate`, which builds it without blocking writers",
        ),
        Err(error) => checks.failed(id, error.diagnostic()),
    }
}

/// Checks whether an operator paused the fleet. Older schemas have no table `revertd.control`.
async fn pause(session: &Session, checks: &mut Checks) {
    let id = "fleet-paused";
    let there = "SELECT to_regclass('revertd.control') IS NOT NULL";
    let there = session.rows(there, &[]).await;
    let Some(true) = there
        .ok()
        .and_then(|rows| rows.first().map(|row| row.get(0)))
    else {
        return;
    };
    let last = session.rows(control::LATEST, &[]).await;
    let Some(rows) = answered(id, last, checks) else {
        return;
    };
    match rows.first().map(control::FleetState::read) {
        Some(state) if state.paused => {
            let seen = format!("the fleet takes no requests: paused {state}");
            checks.warning(id, seen, "run `revertd resume`");
        }
        Some(_) | None => checks.ok(id, "the fleet takes requests"),
    }
}

async fn grants(session: &Session, settings: &Settings, checks: &mut Checks) {
    let id = "authorization";
    if !settings.needs_grants() {
        checks.ok(
            id,
            "authorization.mode is broker: a client that may publish to the request exchange may \
             request reverts of every org",
        );
        return;
    }
    let any = "SELECT count(client) FROM (SELECT client FROM revertd.grants LIMIT 1000) g";
    let Some(rows) = answered(id, session.rows(any, &[]).await, checks) else {
        return;
    };
    match rows.first().map_or(0, |row| row.get::<_, i64>(0)) {
        0 => checks.warning(
            id,
            "authorization.mode is grants, and no client has a grant: every request is refused \
             (ORG_NOT_GRANTED)",
            "revertd grants add CLIENT ORG",
        ),
        1000 => checks.ok(
            id,
            "authorization.mode is grants; a thousand grants or more exist",
        ),
        count => checks.ok(id, format!("authorization.mode is grants; grants: {count}")),
    }
}

/// The account of the platform's legs must only exist if the entries have a foreign key to it.
async fn platform(session: &Session, settings: &Settings, checks: &mut Checks) {
    let id = "platform-account";
    let account = settings.ledger.platform_account;
    let query = "SELECT EXISTS (SELECT FROM {ledger}.billing_customers WHERE id = $1), \
                 EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' \
                 AND conrelid = to_regclass('{ledger}.billing_transactions') \
                 AND confrelid = to_regclass('{ledger}.billing_customers'))";
    let asked = in_ledger(session, settings, query, &[&account]).await;
    let Some(rows) = answered(id, asked, checks) else {
        return;
    };
    let found: Option<(bool, bool)> = rows.first().map(|row| (row.get(0), row.get(1)));
    let missing = format!(
        "the account {account} of ledger.platform_account does not exist in \
    billing_customers"
    );
    let remedy =
        "set ledger.platform_account to the account that Frontier books the platform's entries on";
    match found.unwrap_or_default() {
        (true, _) => checks.ok(id, format!("{account} exists")),
        (false, true) => {
            let seen = format!(
                "{missing}, and the entries have a foreign key to it: no revert can be \
                written"
            );
            checks.error(id, seen, remedy);
        }
        (false, false) => checks.ok(
            id,
            format!(
                "{missing}, and the entries have no foreign key \
        to it"
            ),
        ),
    }
}
