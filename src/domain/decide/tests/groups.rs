use super::*;
use crate::domain::outcome::Failure;
use crate::domain::request::{FirstRefusal, Member};

/// The requests as members of one atomic group.
fn grouped(
    group: u128,
    asked: impl IntoIterator<Item = (RevertRequest, Facts)>,
) -> Vec<(RevertRequest, Facts)> {
    let member = |(index, (mut request, facts)): (usize, (RevertRequest, Facts))| {
        request.member = Some(Member {
            group: Uuid::from_u128(group),
            index,
            refused: None,
        });
        (request, facts)
    };
    asked.into_iter().enumerate().map(member).collect()
}

fn ask(id: &str, usage: u128, amount: i64) -> (RevertRequest, Facts) {
    (request("c", Some(id), usage, amount), facts())
}

fn missing(id: &str) -> (RevertRequest, Facts) {
    let facts = Facts {
        usage: None,
        ..facts()
    };
    (request("c", Some(id), 99, 1), facts)
}

fn told(asked: &[(RevertRequest, Facts)], policy: DecisionPolicy) -> Vec<String> {
    let rulings = rule_all(asked, &History::default(), policy);
    rulings.iter().map(said).collect()
}

fn metadata(ruling: &Ruling) -> Metadata {
    let Decision::Decided(Outcome {
        verdict: Verdict::Refused(refusal),
        ..
    }) = &ruling.decision
    else {
        panic!("{ruling:?}");
    };
    refusal.metadata()
}

#[test]
fn a_group_is_reverted_as_a_whole() {
    let asked = grouped(1, [ask("a", 1, 5), ask("b", 1, 15), ask("c", 2, 20)]);
    let expected = ["reverted 5", "reverted 20", "reverted 20"];
    assert_eq!(told(&asked, CUMULATIVE), expected);
}

#[test]
fn a_refused_request_refuses_its_whole_group() {
    let mut asked = vec![ask("before", 1, 5)];
    asked.extend(grouped(
        1,
        [ask("a", 1, 5), ask("b", 2, 21), ask("c", 3, 1)],
    ));
    asked.extend([ask("after", 1, 15), ask("again", 3, 20)]);
    let group = "GROUP_REFUSED";
    let expected = [
        "reverted 5",
        group,
        "AMOUNT_EXCEEDS_USAGE",
        group,
        "reverted 20",
        "reverted 20",
    ];
    assert_eq!(told(&asked, CUMULATIVE), expected);
    let rulings = rule_all(&asked, &History::default(), CUMULATIVE);
    let first = Metadata::from([
        ("index".into(), "1".into()),
        ("reason".into(), "AMOUNT_EXCEEDS_USAGE".into()),
    ]);
    for index in [1, 3] {
        assert_eq!(metadata(&rulings[index]), first);
        assert_eq!(rulings[index].write, Write::Refusal);
    }
}

#[test]
fn an_invalid_request_refuses_its_group() {
    let mut asked = grouped(1, [ask("a", 1, 5), ask("c", 2, 21)]);
    // The request at index 1 broke a rule, so it is not among those to decide.
    for (index, (request, _)) in asked.iter_mut().enumerate() {
        let member = request.member.as_mut().expect("a member");
        member.index = 2 * index;
        member.refused = Some(FirstRefusal {
            index: 1,
            reason: "INVALID_FIELD".into(),
        });
    }
    assert_eq!(told(&asked, ONCE), ["GROUP_REFUSED", "GROUP_REFUSED"]);
    let rulings = rule_all(&asked, &History::default(), ONCE);
    assert_eq!(metadata(&rulings[0])["index"], "1");
    assert_eq!(metadata(&rulings[0])["reason"], "INVALID_FIELD");
}

#[test]
fn a_request_that_waits_makes_its_group_wait() {
    let mut asked = grouped(1, [ask("a", 1, 5), missing("b"), ask("c", 2, 20)]);
    asked[1].0.last_attempt = false;
    asked.push(ask("after", 1, 20));
    let rulings = rule_all(&asked, &History::default(), ONCE);
    for ruling in &rulings[..3] {
        assert_eq!(ruling.decision, Decision::NotYet);
        assert_eq!(ruling.write, Write::Nothing);
    }
    assert_eq!(said(&rulings[3]), "reverted 20");
    // A final refusal is not waited for.
    asked[2] = grouped(1, [ask("x", 1, 1), ask("y", 1, 1), ask("c", 2, 21)]).remove(2);
    let group = "GROUP_REFUSED";
    let expected = [group, group, "AMOUNT_EXCEEDS_USAGE", "reverted 20"];
    assert_eq!(told(&asked, ONCE), expected);
}

#[test]
fn a_refusal_before_the_usage_remains_in_a_group() {
    let ungranted = Facts {
        is_granted: false,
        ..facts()
    };
    let denied = (request("c", Some("d"), 4, 1), ungranted);
    let asked = grouped(1, [ask("a", 1, 21), denied, ask("c", 2, 1)]);
    let rulings = rule_all(&asked, &History::default(), ONCE);
    let told: Vec<_> = rulings.iter().map(said).collect();
    let expected = ["AMOUNT_EXCEEDS_USAGE", "ORG_NOT_GRANTED", "GROUP_REFUSED"];
    assert_eq!(told, expected);
    // It reveals nothing, and is not stored.
    assert_eq!(rulings[1].write, Write::Nothing);
    assert_eq!(metadata(&rulings[1]), Metadata::new());
}

#[test]
fn a_member_reverted_before_counts_as_reverted() {
    let alone = [ask("a", 1, 5)];
    let mut history = History::default();
    let rulings = rule_all(&alone, &history, ONCE);
    remember(&mut history, &alone, &rulings);
    let asked = grouped(1, [ask("a", 1, 5), ask("b", 2, 20)]);
    let rulings = rule_all(&asked, &history, ONCE);
    assert_eq!(
        rulings[0].decision,
        history.outcomes[&asked[0].0.id].decision
    );
    assert_eq!(said(&rulings[1]), "reverted 20");
    // It stays reverted in a group that is refused, in the history and within the batch.
    let refused = grouped(2, [ask("a", 1, 5), ask("c", 3, 21)]);
    let rulings = rule_all(&refused, &history, ONCE);
    assert_eq!(rulings[0].write, Write::Found);
    let mut asked = vec![ask("a", 1, 5)];
    asked.extend(refused);
    let expected = ["reverted 5", "reverted 5", "AMOUNT_EXCEEDS_USAGE"];
    assert_eq!(told(&asked, ONCE), expected);
}

#[test]
fn a_second_copy_of_a_group_has_the_same_answers() {
    let refused = grouped(1, [ask("a", 1, 5), ask("b", 2, 21), ask("c", 3, 1)]);
    let reverted = grouped(2, [ask("d", 4, 5), ask("e", 5, 5)]);
    let asked = [refused.clone(), refused, reverted.clone(), reverted].concat();
    let rulings = rule_all(&asked, &History::default(), ONCE);
    let decisions: Vec<_> = rulings.iter().map(|ruling| &ruling.decision).collect();
    assert_eq!(decisions[..3], decisions[3..6]);
    assert_eq!(said(&rulings[3]), "GROUP_REFUSED");
    assert_eq!(decisions[6..8], decisions[8..]);
    let second = rulings[3..6].iter().chain(&rulings[8..]);
    assert!(
        second
            .into_iter()
            .all(|ruling| ruling.write == Write::Nothing)
    );
}

#[test]
fn a_member_that_fails_leaves_its_group_undecided() {
    let asked = grouped(1, [ask("a", 1, 5), ask("b", 2, 21), ask("c", 3, 1)]);
    let stored = StoredOutcome {
        content: asked[2].0.content,
        decision: Decision::Failed(Failure::RetriesExhausted("unreadable".into())),
    };
    let history = History {
        outcomes: HashMap::from([(asked[2].0.id, stored)]),
        ..History::default()
    };
    for ruling in rule_all(&asked, &history, ONCE) {
        assert!(matches!(ruling.decision, Decision::Failed(_)), "{ruling:?}");
        assert_eq!(ruling.write, Write::Nothing);
    }
}

#[test]
fn a_refused_group_names_no_entry_of_its_own() {
    let asked = grouped(1, [ask("a", 1, 5), ask("b", 1, 5)]);
    let rulings = rule_all(&asked, &History::default(), ONCE);
    let told: Vec<_> = rulings.iter().map(said).collect();
    assert_eq!(told, ["GROUP_REFUSED", "ALREADY_REVERTED"]);
    assert_eq!(metadata(&rulings[1]), Metadata::new());
    let asked = grouped(1, [ask("a", 1, 5), ask("b", 1, 16)]);
    let rulings = rule_all(&asked, &History::default(), CUMULATIVE);
    assert_eq!(said(&rulings[1]), "AMOUNT_EXCEEDS_USAGE");
    assert_eq!(metadata(&rulings[1])["remaining"], "20");
}

proptest! {
    /// A group takes all of its amounts or none, and leaves the rest of the batch as it would be
    /// without a group that is refused.
    #[test]
    fn a_group_is_all_or_nothing(
        before in proptest::collection::vec((1..4_u128, 1..25_i64), 0..5),
        members in proptest::collection::vec((1..4_u128, 1..25_i64), 1..6),
        after in proptest::collection::vec((1..4_u128, 1..25_i64), 0..5),
        is_cumulative: bool,
    ) {
        let policy = DecisionPolicy { is_cumulative, needs_grants: true };
        let named = |kind: &str, asked: &[(u128, i64)]| -> Vec<(RevertRequest, Facts)> {
            let each = asked.iter().enumerate();
            each.map(|(n, (usage, amount))| ask(&format!("{kind}{n}"), *usage, *amount)).collect()
        };
        let before = named("before", &before);
        let group = grouped(1, named("member", &members));
        let after = named("after", &after);
        let all = [before.clone(), group.clone(), after.clone()].concat();
        let rulings = rule_all(&all, &History::default(), policy);
        let of_group = &rulings[before.len()..before.len() + group.len()];
        let is_reverted = |ruling: &Ruling| matches!(ruling.write, Write::Revert(_));
        let all_or_none = of_group.iter().all(is_reverted) || !of_group.iter().any(is_reverted);
        prop_assert!(all_or_none);
        let alone = rule_all(&[before.clone(), group].concat(), &History::default(), policy);
        prop_assert_eq!(&alone[..], &rulings[..alone.len()]);
        if !of_group.iter().all(is_reverted) {
            let without = rule_all(&[before, after].concat(), &History::default(), policy);
            let with = rulings.iter().filter(|ruling| !of_group.contains(ruling)).cloned();
            prop_assert_eq!(with.collect::<Vec<_>>(), without);
        }
    }
}
