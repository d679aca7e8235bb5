//! The process aborts at each failpoint while it handles groups.

use revertd::common::failpoint;

use super::{assert_aborted, start_crashing_worker};
use crate::support::TestEnv;
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::report::{report, seed, sized};

/// Messages that are published before the crashing worker is checked.
const PART: usize = 12;

const FAILPOINTS: [&str; 9] = [
    failpoint::RECEIVED,
    failpoint::DECODED,
    failpoint::DECIDING,
    failpoint::DECIDED,
    failpoint::HALF_PUBLISHED,
    failpoint::PUBLISHED,
    failpoint::CONFIRMED,
    failpoint::PASSED_ON,
    failpoint::SETTLED,
];

#[tokio::test]
async fn a_crash_at_any_failpoint_leaves_groups_whole() {
    let (seed, rounds) = (seed(), sized(1, 10));
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "20");
    let steady = env.start_worker().await;
    let load = Load::groups(&env, seed, rounds * FAILPOINTS.len() * PART * 2).await;
    let mut parts = load.parts(PART).cycle();
    for round in 0..rounds {
        for failpoint in FAILPOINTS {
            let passes = seed.wrapping_add(round as u64) % 4;
            let mut crashing = start_crashing_worker(&env, failpoint, passes);
            crashing.ready().await;
            while !crashing.has_ended() {
                load.publish_part(&env, parts.next().expect("it cycles"))
                    .await;
            }
            assert_aborted(&mut crashing).await;
        }
    }
    load.publish(&env).await;
    let count = audit(&env, &load, vec![steady]).await;
    report("crash: groups", rounds * FAILPOINTS.len(), count);
    env.teardown().await;
}
