//! The seams of a message's way, at which a test build can be told to crash: no unwinding, no
//! goodbye.
//!
//! Only with the feature `failpoints`, which a release build refuses; otherwise nothing is left of
//! them. The variable `FAILPOINTS` names seams and when to crash there, as the crate `fail` reads
//! it: `decided=3*off->return` lets the seam be passed three times; `received=return(marker)`
//! crashes the process only with a body that contains the marker.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature failpoints is for tests, and must not be in a release build");

/// A batch is in hand, and nothing was done with it.
pub const RECEIVED: &str = "received";
/// It is decoded; its statement comes next.
pub const DECODED: &str = "decoded";
/// The statement is on its way, and its answer is not there yet.
pub const DECIDING: &str = "deciding";
/// The statement is committed; nothing is published.
pub const DECIDED: &str = "decided";
/// Half of the messages are written.
pub const HALF_PUBLISHED: &str = "half-published";
/// All are written; no confirm was waited for.
pub const PUBLISHED: &str = "published";
/// All are confirmed; the batch is not acknowledged.
pub const CONFIRMED: &str = "confirmed";
/// The same of a batch with a retry or a dead letter: the message is on the rung and in the work
/// queue.
pub const PASSED_ON: &str = "passed-on";
/// The batch is settled.
pub const SETTLED: &str = "settled";
/// A graceful stop has begun; no further delivery comes.
pub const STOPPING: &str = "stopping";
/// A window of dead letters is noted in the database; nothing is published.
pub const LETTERS_NOTED: &str = "letters-noted";
/// It is published and confirmed, or saved; none of it is taken off the queue.
pub const LETTERS_PUBLISHED: &str = "letters-published";
/// It is taken off the queue; that is not noted.
pub const LETTERS_SETTLED: &str = "letters-settled";
/// The schema is partly there.
pub const MIGRATING: &str = "migrating";

/// A body is about to be read. The action's argument is the text that must be in it.
pub const READING: &str = "reading";

/// How long a crash amid some work waits for the work to get going.
#[cfg(feature = "failpoints")]
const GET_GOING: std::time::Duration = std::time::Duration::from_millis(3);

/// Makes the variable `FAILPOINTS` count.
pub fn arm() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}

/// Passes a seam, or crashes there.
pub fn hit(failpoint: &str) {
    if action(failpoint).is_some() {
        std::process::abort();
    }
}

/// Passes a seam with a body in hand, or crashes there because of something in it.
pub fn hit_with(failpoint: &str, body: &[u8]) {
    let Some(text) = action(failpoint) else {
        return;
    };
    let mut parts = body.windows(text.len().max(1));
    if parts.any(|part| part == text.as_bytes()) {
        std::process::abort();
    }
}

/// Does `work`, or crashes while it is under way.
pub async fn hit_during<T>(failpoint: &str, work: impl Future<Output = T>) -> T {
    #[cfg(feature = "failpoints")]
    if action(failpoint).is_some() {
        let _ = tokio::time::timeout(GET_GOING, work).await;
        std::process::abort();
    }
    let _ = failpoint;
    work.await
}

/// The argument of the seam's action, where it has one that is due.
#[cfg(feature = "failpoints")]
fn action(failpoint: &str) -> Option<String> {
    fail::fail_point!(failpoint, |text| Some(text.unwrap_or_default()));
    None
}

#[cfg(not(feature = "failpoints"))]
const fn action(_: &str) -> Option<String> {
    None
}
