//! Checks other sessions, standbys and the server's clock.

use jiff::Timestamp;

use super::questions::answered;
use super::server::Server;
use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::connection::session::Session;

/// Seconds after which an open transaction is old.
const OLD: f64 = 600.0;

/// Difference of the clocks in milliseconds: from `NOTABLE` on a warning; from `TOO_MUCH` on an
/// error if an age is measured.
const NOTABLE: i64 = 2_000;
const TOO_MUCH: i64 = 30_000;

/// Compares the server's clock with this machine's.
pub async fn clock(session: &Session, settings: &Settings, checks: &mut Checks) {
    let before = Timestamp::now();
    let now = session.rows("SELECT clock_timestamp()", &[]).await;
    let after = Timestamp::now();
    let Some(rows) = answered("database-clock", now, checks) else {
        return;
    };
    let there: Option<Timestamp> = rows.first().map(|row| row.get(0));
    let there = there.unwrap_or(before).as_millisecond();
    // The server read its clock between `before` and `after`.
    let early = there - before.as_millisecond();
    let late = there - after.as_millisecond();
    let skew = if early < 0 {
        early
    } else if late > 0 {
        late
    } else {
        0
    };
    judge_clock(skew, settings.revert.max_age.is_some(), checks);
}

fn judge_clock(skew: i64, measures_age: bool, checks: &mut Checks) {
    let id = "database-clock";
    let by = skew.unsigned_abs();
    let seconds = format!("{}.{:03}", by / 1000, by % 1000);
    let way = if skew < 0 { "behind" } else { "ahead of" };
    let seen = format!("the server's clock is {seconds} s {way} this machine's");
    let remedy = "synchronize both clocks by NTP";
    if measures_age && by > TOO_MUCH.unsigned_abs() {
        let seen = format!("{seen}, and revert.max_age depends on it");
        checks.error(id, seen, remedy);
    } else if by > NOTABLE.unsigned_abs() {
        checks.warning(id, seen, remedy);
    } else {
        checks.ok(id, "the server's clock and this machine's agree");
    }
}

/// Checks that enough synchronous standbys confirm commits.
pub async fn standbys(session: &Session, server: &Server, checks: &mut Checks) {
    let id = "database-standbys";
    if server.standby_names.is_empty() {
        checks.ok(
            id,
            "synchronous_standby_names is empty: committed data is only on this server's disk",
        );
        return;
    }
    let names = &server.standby_names;
    if !server.sees_sessions {
        let remedy = format!("GRANT pg_read_all_stats TO {};", server.role);
        let why =
            format!("commits wait for {names}, and this role may not see whether they follow");
        checks.skipped_until(id, why, remedy);
        return;
    }
    let following = "SELECT count(*) FROM pg_stat_replication \
                     WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')";
    let Some(rows) = answered(id, session.rows(following, &[]).await, checks) else {
        return;
    };
    judge_standbys(names, rows.first().map_or(0, |row| row.get(0)), checks);
}

fn judge_standbys(names: &str, following: i64, checks: &mut Checks) {
    let id = "database-standbys";
    let needed = standbys_needed(names);
    if following < needed {
        checks.error(
            id,
            format!(
                "every commit waits for {needed} of {names}, and {following} of them follow: \
                 commits hang, and no request is decided"
            ),
            "start the standbys, or name only following standbys in synchronous_standby_names",
        );
    } else {
        checks.ok(
            id,
            format!("commits wait for {needed} of {names}; {following} of them follow"),
        );
    }
}

/// How many standbys a commit waits for: the number in `FIRST n (...)`, `ANY n (...)` and `n
/// (...)`; one for a list without a number.
fn standbys_needed(names: &str) -> i64 {
    let Some((before, _)) = names.split_once('(') else {
        return 1;
    };
    let number = before.split_whitespace().last();
    number.and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Checks for old transactions, which hold back VACUUM, and for locks that block a worker.
pub async fn in_the_way(
    session: &Session,
    server: &Server,
    settings: &Settings,
    checks: &mut Checks,
) {
    let schema = settings.ledger.schema.as_str();
    let asked = session
        .rows(include_str!("sessions.sql"), &[&schema, &OLD])
        .await;
    let Some(rows) = answered("database-sessions", asked, checks) else {
        return;
    };
    let of = |kind: &str| {
        let rows = rows.iter().filter(|row| row.get::<_, &str>(0) == kind);
        let seen =
            rows.map(|row| format!("pid {} {}", row.get::<_, i32>(1), row.get::<_, &str>(2)));
        seen.collect::<Vec<_>>().join("; ")
    };
    let (old, locks) = (of("old"), of("lock"));
    let end = "find its owner (pg_stat_activity), and end it: SELECT pg_terminate_backend(PID)";
    if !old.is_empty() {
        let seen = format!("transactions open for more than ten minutes: {old}");
        checks.warning("database-transactions", seen, end);
    } else if server.sees_sessions {
        checks.ok(
            "database-transactions",
            "none is open for more than ten minutes",
        );
    } else {
        let remedy = format!("GRANT pg_read_all_stats TO {};", server.role);
        let why = "this role sees only its own transactions";
        checks.skipped_until("database-transactions", why, remedy);
    }
    if locks.is_empty() {
        checks.ok(
            "database-locks",
            "no lock blocks a worker on the ledger's tables",
        );
    } else {
        let seen = format!("workers wait for locks of other sessions: {locks}");
        checks.warning("database-locks", seen, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::check::CheckStatus;

    #[test]
    fn too_few_synchronous_standbys_are_an_error() {
        for (names, following, status) in [
            ("a", 1, CheckStatus::Ok),
            ("a, b", 1, CheckStatus::Ok),
            ("*", 0, CheckStatus::Error),
            ("2 (a, b)", 1, CheckStatus::Error),
            ("2 (a, b)", 2, CheckStatus::Ok),
            ("FIRST 2 (a, b, c)", 1, CheckStatus::Error),
            ("first 1(a, b)", 1, CheckStatus::Ok),
            ("ANY 3 (*)", 2, CheckStatus::Error),
            ("ANY 2 (a, b, c)", 3, CheckStatus::Ok),
        ] {
            let mut checks = Checks::default();
            judge_standbys(names, following, &mut checks);
            assert_eq!(checks.count(status), 1, "{names} {following}");
        }
    }

    #[test]
    fn a_clock_difference_is_worse_with_max_age() {
        for (skew, measures_age, status) in [
            (-1_999, true, CheckStatus::Ok),
            (2_001, false, CheckStatus::Warning),
            (-29_000, true, CheckStatus::Warning),
            (-31_000, true, CheckStatus::Error),
            (31_000, false, CheckStatus::Warning),
        ] {
            let mut checks = Checks::default();
            judge_clock(skew, measures_age, &mut checks);
            assert_eq!(checks.count(status), 1, "{skew} {measures_age}");
        }
    }
}
