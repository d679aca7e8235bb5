//! What a process did since its start, in numbers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of the process. Each counts messages.
        #[derive(Debug, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                $(
                    write!(f, "{separator}{}={}", stringify!($name), self.$name.get())?;
                    separator = " ";
                )*
                Ok(())
            }
        }
    };
}

tally! {
    /// Answered with `usage.reverted`, for the first time or again.
    reverted,
    /// Answered with `usage.revert.rejected`.
    rejected,
    /// Put on a rung of the retry ladder.
    retried,
    /// Put into the dead-letter queue.
    dead_lettered,
    /// Delivered more than once.
    redelivered,
    /// Events that no queue was bound for.
    unroutable,
    /// Copies to a request's `reply_to` that did not arrive, or were not allowed.
    replies_failed,
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one more.
    pub fn add(&self) {
        // Numbers for people; nothing is synchronized by them.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
