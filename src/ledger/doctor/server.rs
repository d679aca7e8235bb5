//! Checks the server's settings: version, durability, connections, transaction age.
//!
//! It sends no queries.

use tokio_postgres::Row;

use crate::common::check::Checks;
use crate::config::Settings;

/// Versions of PostgreSQL that this program supports.
const OLDEST: i32 = 13;
const NEWEST: i32 = 18;

/// Age in transactions that indicates missing vacuums. The server stops at about two thousand
/// million.
const OLD: i32 = 1_000_000_000;

/// The row of `server.sql`.
#[allow(clippy::struct_excessive_bools, reason = "the columns of one row")]
pub struct Server {
    /// Quoted for use in a statement, as is the database's name.
    pub role: String,
    pub database: String,
    pub sees_sessions: bool,
    pub superuser: bool,
    pub standby_names: String,
    pub may_create: bool,
    version: String,
    major: i32,
    encoding: String,
    standby: bool,
    read_only: bool,
    fsync: bool,
    full_page_writes: bool,
    synchronous_commit: String,
    replication_role: String,
    autovacuum: bool,
    connections: i32,
    reserved: i32,
    used: i32,
    role_limit: i32,
    database_limit: i32,
    age: i32,
}

impl Server {
    pub fn read(row: &Row) -> Self {
        let version: i32 = row.get("version_num");
        let ages: [i32; 2] = [row.get("xid_age"), row.get("multixact_age")];
        Self {
            role: row.get("role"),
            database: row.get("database"),
            sees_sessions: row.get("sees_sessions"),
            superuser: row.get("superuser"),
            standby_names: row.get("standby_names"),
            may_create: row.get("may_create"),
            version: row.get("version"),
            major: version / 10_000,
            encoding: row.get("encoding"),
            standby: row.get("standby"),
            read_only: row.get("read_only"),
            fsync: row.get("fsync"),
            full_page_writes: row.get("full_page_writes"),
            synchronous_commit: row.get("synchronous_commit"),
            replication_role: row.get("replication_role"),
            autovacuum: row.get("autovacuum"),
            connections: row.get("connections"),
            reserved: row.get("reserved"),
            used: row.get("used"),
            role_limit: row.get("role_limit"),
            database_limit: row.get("database_limit"),
            age: ages[0].max(ages[1]),
        }
    }

    pub fn check(&self, settings: &Settings, checks: &mut Checks) {
        self.version(checks);
        self.writable(checks);
        keeps_what_it_confirms(self.fsync, checks);
        if !self.full_page_writes {
            checks.warning(
                "database-full-page-writes",
                "full_page_writes is off: a crash can leave a page half written",
                "set full_page_writes = on, unless the file system writes pages atomically (ZFS)",
            );
        }
        fires_triggers(self.replication_role != "replica", checks);
        match self.synchronous_commit.as_str() {
            "on" | "remote_apply" => checks.ok(
                "database-synchronous-commit",
                format!("synchronous_commit is {}", self.synchronous_commit),
            ),
            other => checks.ok(
                "database-synchronous-commit",
                format!(
                    "synchronous_commit is {other} by default; revertd's own sessions set it to on"
                ),
            ),
        }
        self.connections(settings, checks);
        self.vacuum(checks);
    }

    fn version(&self, checks: &mut Checks) {
        let seen = format!("PostgreSQL {}", self.version);
        if self.major < OLDEST {
            let remedy = format!("upgrade the server to PostgreSQL {OLDEST} to {NEWEST}");
            checks.error("database-version", seen, remedy);
        } else if self.major > NEWEST {
            let remedy = format!(
                "revertd was tested with {OLDEST} to {NEWEST}: use a newer revertd, if \
                one exists"
            );
            checks.warning("database-version", seen, remedy);
        } else {
            checks.ok("database-version", seen);
        }
        if self.encoding == "UTF8" {
            checks.ok("database-encoding", "UTF8");
        } else {
            checks.error(
                "database-encoding",
                format!(
                    "the database is encoded in {}, which cannot store every text",
                    self.encoding
                ),
                "use a database that was created with ENCODING 'UTF8'",
            );
        }
    }

    fn writable(&self, checks: &mut Checks) {
        if self.standby {
            checks.error(
                "database-writable",
                "the server is a standby, which accepts no writes",
                "point database.url at the primary, or name all hosts with \
                 target_session_attrs=read-write",
            );
        } else if self.read_only {
            checks.error(
                "database-writable",
                "transactions are read-only by default",
                format!(
                    "find where default_transaction_read_only is set: ALTER ROLE {} RESET \
                     default_transaction_read_only, ALTER DATABASE {} RESET \
                     default_transaction_read_only, or the server's configuration",
                    self.role, self.database
                ),
            );
        } else {
            checks.ok(
                "database-writable",
                "the server is a primary that accepts writes",
            );
        }
    }

    fn connections(&self, settings: &Settings, checks: &mut Checks) {
        let id = "database-connections";
        let pool = i32::from(settings.pool_size());
        let limits = [
            (
                self.role_limit,
                format!("ALTER ROLE {} CONNECTION LIMIT", self.role),
            ),
            (
                self.database_limit,
                format!("ALTER DATABASE {} CONNECTION LIMIT", self.database),
            ),
        ];
        // A superuser has no connection limit.
        let low = limits
            .iter()
            .find(|(limit, _)| (0..pool).contains(limit) && !self.superuser);
        if let Some((limit, statement)) = low {
            checks.error(
                id,
                format!("a limit of {limit} connections is below database.pool_size ({pool})"),
                format!(
                    "{statement} {}; or lower database.pool_size and worker.concurrency",
                    pool * 2
                ),
            );
            return;
        }
        // The session of this check is one of the used connections.
        let free = self.connections - self.reserved - self.used + 1;
        let seen = format!(
            "{free} of {} connections are free; a worker process takes up to {pool}",
            self.connections
        );
        if free < pool {
            let remedy = "raise max_connections, lower database.pool_size, or end unused sessions \
                          (a running worker already has its connections)";
            checks.warning(id, seen, remedy);
        } else {
            checks.ok(id, seen);
        }
    }

    fn vacuum(&self, checks: &mut Checks) {
        if self.autovacuum {
            checks.ok("database-autovacuum", "on");
        } else {
            checks.warning(
                "database-autovacuum",
                "autovacuum is off: the ledger's indexes grow, and the server stops in the end",
                "set autovacuum = on and track_counts = on",
            );
        }
        let seen = format!(
            "the oldest unfrozen transaction is {} transactions old",
            self.age
        );
        if self.age > OLD {
            checks.warning(
                "database-wraparound",
                seen,
                "end the old transactions, prepared transactions or replication slots that hold \
                 back VACUUM, then run VACUUM FREEZE",
            );
        } else {
            checks.ok("database-wraparound", seen);
        }
    }
}

/// Checks `fsync`: without it, a crash of the machine can lose reverts that were answered.
pub fn keeps_what_it_confirms(fsync: bool, checks: &mut Checks) {
    if fsync {
        checks.ok("database-fsync", "on: committed data is on disk");
    } else {
        checks.error(
            "database-fsync",
            "fsync is off: a crash can lose committed data, including reverts that were answered",
            "set fsync = on in postgresql.conf and reload",
        );
    }
}

/// Checks that triggers fire: without them, the chain of reverts on a usage is not enforced.
pub fn fires_triggers(fires: bool, checks: &mut Checks) {
    if !fires {
        checks.error(
            "database-triggers",
            "session_replication_role is replica by default: triggers do not guard the outcomes",
            "reset it: ALTER ROLE or ALTER DATABASE ... RESET session_replication_role",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::check::CheckStatus;

    #[test]
    fn a_server_that_can_lose_commits_is_an_error() {
        for (fsync, status) in [(true, CheckStatus::Ok), (false, CheckStatus::Error)] {
            let mut checks = Checks::default();
            keeps_what_it_confirms(fsync, &mut checks);
            assert_eq!(checks.count(status), 1);
        }
    }
}
