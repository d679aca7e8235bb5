//! Random histories, decided by several writers at once, compared with the model.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use super::writers::Writers;
use crate::support::model::Policy;
use crate::support::report::{AuditResult, full, report, seed};

/// Cases of the quick form.
const QUICK: u32 = 64;

/// Cases of the full form, and how long they may take altogether.
const FULL: u32 = 20_000;
const FULL_TIME: Duration = Duration::from_mins(3);

/// Writers at work at the same time, each with connections of its own.
pub const WRITERS: usize = 4;

/// A history: the ledger, the requests, and the batches in which each process gets them.
#[derive(Clone, Debug)]
pub struct Case {
    pub policy: Policy,
    /// Seed from which ids, accounts and encodings are generated.
    pub seed: u64,
    pub usages: Vec<Usage>,
    pub asks: Vec<Ask>,
    /// Indexes of requests that are delivered again, and their places.
    pub again: Vec<(prop::sample::Index, prop::sample::Index)>,
    /// Which writer gets a delivery, in turn.
    pub writers: Vec<usize>,
    /// Sizes of the writers' batches, in turn.
    pub batches: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Usage {
    pub kind: Kind,
    pub amount: i64,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Plain,
    /// Older than `revert.max_age`.
    Closed,
    /// Given back by Frontier, up to the whole.
    PartlyGivenBack,
    Purchase,
    FrontiersRevert,
    Unknown,
    OfAnotherAccount,
    WithoutAccount,
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub usage: prop::sample::Index,
    pub amount: i64,
    pub id: Id,
    pub client: bool,
    pub reason: bool,
}

#[derive(Clone, Debug)]
pub enum Id {
    None,
    Own,
    /// One of a few, which others may use as well.
    Shared(u8),
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        12 => Just(Kind::Plain),
        1 => Just(Kind::Closed),
        3 => Just(Kind::PartlyGivenBack),
        1 => Just(Kind::Purchase),
        1 => Just(Kind::FrontiersRevert),
        1 => Just(Kind::Unknown),
        1 => Just(Kind::OfAnotherAccount),
        1 => Just(Kind::WithoutAccount),
    ];
    let usage = (kind, 1..=40_i64).prop_map(|(kind, amount)| Usage { kind, amount });
    let id = prop_oneof![
        6 => Just(Id::Own),
        2 => (0..4_u8).prop_map(Id::Shared),
        1 => Just(Id::None),
    ];
    let amount = prop_oneof![9 => 1..=15_i64, 3 => 1..=45_i64, 1 => Just(i64::MAX)];
    let ask = (
        any::<prop::sample::Index>(),
        amount,
        id,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(usage, amount, id, client, reason)| Ask {
            usage,
            amount,
            id,
            client,
            reason,
        });
    (
        prop_oneof![Just(Policy::Once), Just(Policy::Cumulative)],
        any::<u64>().no_shrink(),
        prop::collection::vec(usage, 1..6),
        prop::collection::vec(ask, 1..70),
        prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..30),
        prop::collection::vec(0..WRITERS, 1..40),
        prop::collection::vec(1..=50_usize, 1..8),
    )
        .prop_map(
            |(policy, seed, usages, asks, again, writers, batches)| Case {
                policy,
                seed,
                usages,
                asks,
                again,
                writers,
                batches,
            },
        )
}

#[test]
fn concurrent_writers_decide_as_the_sequential_model() {
    let (writers, seed) = (Writers::new(), seed());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = ProptestConfig {
        cases: if full() { FULL } else { QUICK },
        // A failure that depends on a race may not happen again, even in a smaller case.
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (total, failed) = (
        RefCell::new(AuditResult::default()),
        RefCell::new(AuditResult::default()),
    );
    let (cases, start) = (RefCell::new(0), Instant::now());
    let done = runner.run(&case(), |case| {
        if full() && start.elapsed() > FULL_TIME {
            return Ok(());
        }
        let count = writers.run(&case);
        if !count.is_clean() {
            *failed.borrow_mut() = count;
            return Err(TestCaseError::fail("not what the contract says"));
        }
        *total.borrow_mut() += count;
        *cases.borrow_mut() += 1;
        Ok(())
    });
    writers.done();
    let mut count = total.into_inner();
    count += failed.into_inner();
    if let Err(TestError::Fail(_, case)) = &done {
        let smallest = format!("the smallest case that shows it: {case:#?}");
        count.findings.push(smallest);
    }
    report("writers racing", cases.into_inner(), count);
    done.expect("every case can be run");
}
