use proptest::prelude::*;

use super::*;
use crate::domain::outcome::{Decision, Metadata, Outcome, Verdict};
use crate::domain::refusal::RefusalReason;
use crate::domain::request::{Amount, Envelope, Fields, RevertRequest};

const ONCE: DecisionPolicy = DecisionPolicy {
    is_cumulative: false,
    needs_grants: true,
};
const CUMULATIVE: DecisionPolicy = DecisionPolicy {
    is_cumulative: true,
    ..ONCE
};
const ACCOUNT: Account = Account {
    id: Uuid::from_u128(2),
    org_id: Uuid::from_u128(3),
};

/// A request for `amount` of a usage.
fn request(client: &str, message_id: Option<&str>, usage: u128, amount: i64) -> RevertRequest {
    let envelope = Envelope {
        client: client.into(),
        message_id: message_id.map(Into::into),
        ..Envelope::default()
    };
    let fields = Fields {
        usage_id: Uuid::from_u128(usage),
        amount: Amount::new(amount).expect("positive"),
        billing_id: Some(ACCOUNT.id),
        org_id: None,
        project_id: None,
        reason: None,
    };
    RevertRequest::new(&envelope, fields, true)
}

/// A granted account with a usage of 20.
fn facts() -> Facts {
    Facts {
        is_granted: true,
        account: Some(ACCOUNT),
        usage: Some(UsageFacts {
            kind: EntryKind::Usage,
            amount: 20,
            is_closed: false,
            is_named: false,
            created_later: None,
        }),
    }
}

fn with_usage(change: impl FnOnce(&mut UsageFacts)) -> Facts {
    let mut facts = facts();
    change(facts.usage.as_mut().expect("a usage"));
    facts
}

fn reverts(count: i64, total: i64) -> Reverts {
    Reverts {
        own: None,
        count,
        total,
        earliest: (count > 0).then(|| Metadata::from([("amount".into(), total.to_string())])),
        free_numbers: (count..count + 10).collect(),
    }
}

fn history_of(usage: u128, reverts: Reverts) -> History {
    History {
        usages: HashMap::from([(Uuid::from_u128(usage), reverts)]),
        ..History::default()
    }
}

fn rule_all(
    asked: &[(RevertRequest, Facts)],
    history: &History,
    policy: DecisionPolicy,
) -> Vec<Ruling> {
    let questions: Vec<_> = asked
        .iter()
        .map(|(request, facts)| Question { request, facts })
        .collect();
    decide(&questions, history, policy, Timestamp::UNIX_EPOCH)
}

/// The reason, or the amount that is reverted in all.
fn said(ruling: &Ruling) -> String {
    match &ruling.decision {
        Decision::Decided(Outcome {
            verdict: Verdict::Refused(refusal),
            ..
        }) => refusal.code().reason.to_owned(),
        Decision::Decided(Outcome {
            verdict: Verdict::Applied(entry),
            ..
        }) => format!("reverted {}", entry.reverted_total),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_row_that_applies_decides() {
    let id = Some("m");
    let none = History::default();
    let reverted = history_of(1, reverts(1, 5));
    let other_content = {
        let stored = StoredOutcome {
            content: Uuid::from_u128(99),
            decision: Decision::NotYet,
        };
        let id = request("c", id, 1, 5).id;
        History {
            outcomes: HashMap::from([(id, stored)]),
            ..History::default()
        }
    };
    let ungranted = Facts {
        is_granted: false,
        ..facts()
    };
    let no_account = Facts {
        account: None,
        usage: None,
        ..facts()
    };
    let no_usage = Facts {
        usage: None,
        ..facts()
    };
    let revert = with_usage(|usage| usage.kind = EntryKind::Revert);
    let purchase = with_usage(|usage| usage.kind = EntryKind::Other);
    let closed = with_usage(|usage| usage.is_closed = true);
    let negative = with_usage(|usage| usage.amount = -20);
    let rows = [
        (ONCE, "", id, 5, &facts(), &none, "CLIENT_UNKNOWN"),
        (CUMULATIVE, "c", None, 5, &ungranted, &none, "INVALID_FIELD"),
        (
            ONCE,
            "c",
            id,
            5,
            &ungranted,
            &other_content,
            "ORG_NOT_GRANTED",
        ),
        (
            ONCE,
            "c",
            id,
            5,
            &no_account,
            &none,
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (
            ONCE,
            "c",
            id,
            5,
            &no_usage,
            &other_content,
            "REQUEST_ID_REUSED",
        ),
        (ONCE, "c", id, 5, &no_usage, &none, "USAGE_NOT_FOUND"),
        (ONCE, "c", id, 5, &revert, &none, "REVERT_OF_REVERT"),
        (ONCE, "c", id, 5, &purchase, &none, "NOT_A_USAGE"),
        (ONCE, "c", id, 5, &closed, &reverted, "REVERT_WINDOW_CLOSED"),
        (ONCE, "c", id, 50, &facts(), &reverted, "ALREADY_REVERTED"),
        (ONCE, "c", id, 21, &facts(), &none, "AMOUNT_EXCEEDS_USAGE"),
        (ONCE, "c", id, 1, &negative, &none, "AMOUNT_EXCEEDS_USAGE"),
        (
            CUMULATIVE,
            "c",
            id,
            16,
            &facts(),
            &reverted,
            "AMOUNT_EXCEEDS_USAGE",
        ),
        (CUMULATIVE, "c", id, 15, &facts(), &reverted, "reverted 20"),
        (ONCE, "c", id, 20, &facts(), &none, "reverted 20"),
        (ONCE, "c", None, 20, &facts(), &none, "reverted 20"),
    ];
    // The last row of the table refuses members of a group alone (tests/groups.rs).
    let mut reasons: Vec<_> = rows.iter().map(|row| row.6).collect();
    reasons.retain(|expected| !expected.starts_with("reverted"));
    reasons.dedup();
    let all = RefusalReason::names();
    assert_eq!(reasons[..], all[..all.len() - 1]);
    for (policy, client, id, amount, facts, history, expected) in rows {
        let asked = [(request(client, id, 1, amount), facts.clone())];
        let rulings = rule_all(&asked, history, policy);
        assert_eq!(said(&rulings[0]), expected);
    }
}

#[test]
fn requests_on_one_usage_share_it_in_order() {
    let ask = |id, amount| (request("c", Some(id), 1, amount), facts());
    let asked = [ask("a", 5), ask("b", 18), ask("c", 10), ask("d", 1)];
    let rulings = rule_all(&asked, &History::default(), CUMULATIVE);
    let told: Vec<_> = rulings.iter().map(said).collect();
    assert_eq!(
        told,
        [
            "reverted 5",
            "AMOUNT_EXCEEDS_USAGE",
            "reverted 15",
            "reverted 16"
        ]
    );
    let Write::Revert(third) = rulings[2].write else {
        panic!("{rulings:?}");
    };
    assert_eq!((third.revert_no, third.reverted_before), (1, 5));
    // Reverted once, the usage is given to the first request that fits.
    let asked = [ask("a", 21), ask("b", 5), ask("c", 5)];
    let rulings = rule_all(&asked, &History::default(), ONCE);
    let told: Vec<_> = rulings.iter().map(said).collect();
    assert_eq!(
        told,
        ["AMOUNT_EXCEEDS_USAGE", "reverted 5", "ALREADY_REVERTED"]
    );
    let Decision::Decided(Outcome {
        verdict: Verdict::Refused(refusal),
        ..
    }) = &rulings[2].decision
    else {
        panic!("{rulings:?}");
    };
    let metadata = refusal.metadata();
    assert_eq!(metadata["amount"], "5");
    assert_eq!(metadata["time"], "1970-01-01T00:00:00.000000Z");
}

#[test]
fn the_first_stored_content_has_the_id() {
    let id = Some("m");
    let missing = Facts {
        usage: None,
        ..facts()
    };
    let asked = [
        (request("c", id, 1, 5), missing.clone()),
        (request("c", id, 2, 5), facts()),
        (request("c", id, 3, 5), facts()),
    ];
    // On its last attempt the first is stored, and the others come too late.
    let rulings = rule_all(&asked, &History::default(), ONCE);
    let told: Vec<_> = rulings.iter().map(said).collect();
    assert_eq!(
        told,
        ["USAGE_NOT_FOUND", "REQUEST_ID_REUSED", "REQUEST_ID_REUSED"]
    );
    // Before, it is retried, and the second is the first that is stored.
    let mut asked = asked;
    asked[0].0.last_attempt = false;
    let rulings = rule_all(&asked, &History::default(), ONCE);
    assert_eq!(rulings[0].decision, Decision::NotYet);
    let told: Vec<_> = rulings[1..].iter().map(said).collect();
    assert_eq!(told, ["reverted 5", "REQUEST_ID_REUSED"]);
}

#[test]
fn reverts_of_others_and_own_ones_are_told_apart() {
    let own = OwnReverts {
        count: 2,
        total: 8,
        last: Metadata::new(),
    };
    // The ledger has 11: 8 of revertd and 3 of others. Then revertd's entries were removed.
    for (total, before, others) in [(11, 11, Some(3)), (3, 8, None), (8, 8, None)] {
        let reverts = Reverts {
            own: Some(own.clone()),
            ..reverts(1, total)
        };
        let asked = [(request("c", Some("m"), 1, 2), facts())];
        let rulings = rule_all(&asked, &history_of(1, reverts), CUMULATIVE);
        let Write::Revert(new) = rulings[0].write else {
            panic!("{rulings:?}");
        };
        let numbers = (new.reverted_before, new.reverted_by_others, new.revert_no);
        assert_eq!(numbers, (before, others, 2));
    }
}

#[test]
fn a_stored_outcome_is_the_answer_to_every_policy() {
    let asked = request("c", Some("m"), 1, 5);
    let stored = |id, content| {
        let stored = StoredOutcome {
            content,
            decision: Decision::NotYet,
        };
        (id, stored)
    };
    let same = HashMap::from([stored(asked.id, asked.content)]);
    let reuse = HashMap::from([
        stored(asked.id, Uuid::nil()),
        stored(asked.reuse_id, asked.content),
    ]);
    for outcomes in [same, reuse] {
        let history = History {
            outcomes,
            ..History::default()
        };
        let asked = [(asked.clone(), Facts::default())];
        let rulings = rule_all(&asked, &history, ONCE);
        assert_eq!(rulings[0].decision, Decision::NotYet);
        assert_eq!(rulings[0].write, Write::Found);
    }
}

/// The history after rulings were written.
fn remember(history: &mut History, asked: &[(RevertRequest, Facts)], rulings: &[Ruling]) {
    for ((request, _), ruling) in asked.iter().zip(rulings) {
        let Decision::Decided(outcome) = &ruling.decision else {
            continue;
        };
        if let Write::Refusal | Write::Revert(_) = ruling.write {
            let stored = StoredOutcome {
                content: request.content,
                decision: Decision::Decided(outcome.clone()),
            };
            history.outcomes.insert(outcome.id, stored);
        }
        if let (Write::Revert(new), Verdict::Applied(entry)) = (ruling.write, &outcome.verdict) {
            let usage = request.fields.usage_id;
            let before = history.usages.get(&usage).cloned();
            let before = before.unwrap_or_else(|| reverts(0, 0));
            let amount = request.fields.amount.get();
            let metadata = history::earlier(entry.transaction_id, amount, Some(outcome.decided_at));
            let own_total = before.own.as_ref().map_or(0, |own| own.total);
            let next = Reverts {
                own: Some(OwnReverts {
                    count: u64::try_from(new.revert_no).expect("from 0") + 1,
                    total: own_total + amount,
                    last: metadata.clone(),
                }),
                count: before.count + 1,
                total: before.total + amount,
                earliest: before.earliest.or(Some(metadata)),
                free_numbers: (before.count + 1..before.count + 20).collect(),
            };
            history.usages.insert(usage, next);
        }
    }
}

fn asked() -> impl Strategy<Value = (RevertRequest, Facts)> {
    let kind = prop_oneof![
        8 => Just(EntryKind::Usage),
        1 => Just(EntryKind::Revert),
        1 => Just(EntryKind::Other),
    ];
    let id = prop_oneof![Just(None), (0..8_u8).prop_map(Some)];
    (id, 1..4_u128, 1..25_i64, kind, any::<bool>()).prop_map(
        |(id, usage, amount, kind, is_client_known)| {
            let id = id.map(|id| id.to_string());
            let client = if is_client_known { "c" } else { "" };
            // The kind is a property of the usage.
            let kind = if usage == 3 { kind } else { EntryKind::Usage };
            let facts = with_usage(|facts| facts.kind = kind);
            (request(client, id.as_deref(), usage, amount), facts)
        },
    )
}

proptest! {
    /// A batch is decided as its requests would be one by one.
    #[test]
    fn a_batch_decides_like_batches_of_one(
        asked in proptest::collection::vec(asked(), 1..24),
        is_cumulative: bool,
        needs_grants: bool,
    ) {
        let policy = DecisionPolicy { is_cumulative, needs_grants };
        let mut distinct: Vec<(RevertRequest, Facts)> = Vec::new();
        for (request, facts) in asked {
            let is_new = distinct.iter().all(|(other, _)| {
                (other.id, other.content) != (request.id, request.content)
            });
            if is_new {
                distinct.push((request, facts));
            }
        }
        let together = rule_all(&distinct, &History::default(), policy);
        let mut history = History::default();
        for (one, expected) in distinct.iter().zip(&together) {
            let one = std::slice::from_ref(one);
            let alone = rule_all(one, &history, policy);
            prop_assert_eq!(&alone[0], expected);
            remember(&mut history, one, &alone);
        }
    }
}

mod groups;
