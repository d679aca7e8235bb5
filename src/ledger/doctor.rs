//! The database checks of `revertd doctor`, and the checks that a worker requires to pass.
//!
//! They change nothing. A query that fails becomes a failed check, and the other checks still run.

use super::Ledger;
use super::connection::connect;
use super::connection::session::Session;
use super::error::{LedgerError, StatementError, classify};
use super::schema::objects::ObjectScope;
use super::schema::{migrate, objects};
use crate::common::check::{Checks, SHOWS_ALL};
use crate::common::connectivity::{CheckIds, reach};
use crate::config::Settings;
use questions::LIMITS;
use server::Server;

mod migrated;
mod privileges;
mod questions;
mod schema;
mod server;
mod sessions;
mod unlogged;

const WORDS: CheckIds = CheckIds {
    dns: "database-dns",
    tcp: "database-tcp",
    key: "database.url",
};

/// Runs all checks.
pub async fn doctor(settings: &Settings) -> Checks {
    let mut checks = Checks::default();
    let Some(session) = log_in(settings, &mut checks).await else {
        checks.skipped(
            "database-state",
            "the database cannot be checked without a login",
        );
        return checks;
    };
    let server = session.rows(include_str!("doctor/server.sql"), &[]).await;
    match server.as_deref().map(|rows| rows.first().map(Server::read)) {
        Ok(Some(server)) => {
            server.check(settings, &mut checks);
            sessions::clock(&session, settings, &mut checks).await;
            sessions::standbys(&session, &server, &mut checks).await;
            sessions::in_the_way(&session, &server, settings, &mut checks).await;
            schema::check(&session, &server, settings, &mut checks).await;
            privileges::check(&session, &server, settings, &mut checks).await;
        }
        Ok(None) => checks.skipped(
            "database-state",
            "the server returned none of its \
        settings",
        ),
        Err(error) => checks.failed("database-state", error.diagnostic()),
    }
    checks.skipped(
        "database-disk",
        "free disk space is only visible on the server's machine; monitor it there",
    );
    checks
}

/// Resolves, connects and logs in, one step after another.
async fn log_in(settings: &Settings, checks: &mut Checks) -> Option<Session> {
    let steps = ["database-tls", "database-login"];
    let servers = match connect::servers(settings) {
        Ok(servers) => servers,
        Err(error) => {
            checks.failed("database-url", error.diagnostic());
            return None;
        }
    };
    if servers.is_empty() {
        checks.skipped(WORDS.tcp, "the server is on this machine");
    } else if !reach(WORDS, &servers, checks).await {
        let skip = |id| checks.skipped(id, "the server cannot be reached");
        steps.into_iter().for_each(skip);
        return None;
    }
    match Session::open(settings).await {
        Ok(session) => {
            encryption(settings, checks);
            let limited = session.answered(session.client.batch_execute(LIMITS)).await;
            match limited {
                Ok(()) => checks.ok("database-login", format!("logged in at {}", session.host)),
                Err(error) => checks.failed("database-login", error.diagnostic()),
            }
            Some(session)
        }
        Err(error) if error.is_at_tls() => {
            checks.failed("database-tls", error.diagnostic());
            checks.skipped(
                "database-login",
                "nothing is sent before the server is verified",
            );
            None
        }
        Err(error) => {
            encryption(settings, checks);
            checks.failed("database-login", error.diagnostic());
            None
        }
    }
}

fn encryption(settings: &Settings, checks: &mut Checks) {
    let clear = connect::unencrypted(settings);
    if !clear.is_empty() {
        checks.warning(
            "database-tls",
            format!("the connection to {} is not encrypted", clear.join(", ")),
            "use sslmode=verify-full in database.url",
        );
    } else if settings.database.url.tls().is_some() {
        checks.ok(
            "database-tls",
            "encrypted, and the server's certificate is verified in \
        full",
        );
    } else {
        checks.ok(
            "database-tls",
            "not encrypted, but the server is on this machine",
        );
    }
}

impl Ledger {
    /// Checks the guarantees that a worker depends on and cannot observe while it works: the server
    /// keeps committed data, and the database refuses invalid rows.
    ///
    /// # Errors
    ///
    /// If a check fails. The error contains the problem and its remedy.
    pub async fn assure(&self, settings: &Settings) -> Result<(), LedgerError> {
        let schema = settings.ledger.schema.as_str();
        let assuring = self.on_connection(async |client| {
            let classify = |error| classify(&error, &self.host);
            let keeps = "SELECT current_setting('fsync') = 'on', \
                         current_setting('session_replication_role') <> 'replica'";
            let keeps = client.query_one(keeps, &[]).await.map_err(classify)?;
            let unlogged = client.query(unlogged::QUERY, &[&schema]).await;
            let unlogged = unlogged.map_err(classify)?;
            let version = client.query_one(migrate::VERSION, &[]).await;
            let version: i32 = version.map_err(classify)?.get(0);
            let mut checks = Checks::default();
            server::keeps_what_it_confirms(keeps.get(0), &mut checks);
            server::fires_triggers(keeps.get(1), &mut checks);
            unlogged::check(&unlogged, &mut checks);
            let newer = version > migrate::latest();
            let troubles = objects::schema_diff(client, ObjectScope::Guards, newer).await;
            for (seen, remedy) in troubles.map_err(classify)? {
                checks.error("database-objects", seen, remedy);
            }
            match checks.first_error() {
                None => Ok(()),
                Some(error) => {
                    let host = &self.host;
                    let error = error.prefixed(format!(
                        "PostgreSQL at {host} does not protect the \
                        ledger: "
                    ));
                    let error = LedgerError::permanent(error.suffixed(SHOWS_ALL));
                    Err(StatementError::Unavailable(error))
                }
            }
        });
        assuring.await.map_err(StatementError::into_error)
    }
}
