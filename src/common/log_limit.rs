//! Log lines of one kind, at most one a minute: what a stranger can cause must not fill a disk.
//!
//! The one place that decides when a line is due. It must not know what is logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one kind.
const QUIET: Duration = Duration::from_mins(1);

/// Counts what there is to log of one kind, and says when a line is due.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Unsaid>);

#[derive(Debug, Default)]
struct Unsaid {
    last: Option<Instant>,
    count: u64,
}

impl LogLimit {
    /// Notes so many cases. Where a line is due, how many there were since the last one, these
    /// included.
    pub fn note(&self, cases: u64) -> Option<u64> {
        self.note_at(cases, Instant::now())
    }

    fn note_at(&self, cases: u64, now: Instant) -> Option<u64> {
        // Nothing panics while it holds the lock.
        let mut unsaid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unsaid.count += cases;
        let is_due = unsaid.last.is_none_or(|last| now >= last + QUIET);
        if !is_due || unsaid.count == 0 {
            return None;
        }
        unsaid.last = Some(now);
        Some(std::mem::take(&mut unsaid.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_a_minute_with_a_count() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let at = |seconds, cases| limit.note_at(cases, now + Duration::from_secs(seconds));
        assert_eq!(at(0, 0), None, "nothing to say");
        assert_eq!(at(1, 1), Some(1));
        assert_eq!(at(2, 5), None);
        assert_eq!(at(60, 2), None);
        assert_eq!(at(61, 1), Some(8));
        assert_eq!(at(200, 1), Some(1));
    }
}
