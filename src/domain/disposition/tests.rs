use std::time::Duration;

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    message_bytes: 1000,
    group_bytes: 2000,
    group_requests: 3,
};

fn ladder(rungs: u64) -> Ladder {
    Ladder {
        delays: (1..=rungs).map(Duration::from_secs).collect(),
        usage_not_found_attempts: 0,
    }
}

fn letter(failure: Failure) -> Disposition {
    let (envelope, now) = (Envelope::default(), Timestamp::UNIX_EPOCH);
    dead_letter(&envelope, Uuid::nil(), &Fragments::default(), failure, now)
}

#[test]
fn an_unconfirmed_message_is_settled_or_waits() {
    use PublishFault::{Refused, Unanswered};
    use Recourse::{DropLetter, OwnQueue, Wait};
    let Disposition::DeadLetter { event, .. } = letter(Failure::Malformed(String::new())) else {
        panic!("it is dead-lettered");
    };
    let answer = Disposition::Answer(event);
    let malformed = letter(Failure::Malformed(String::new()));
    let exhausted = letter(Failure::RetriesExhausted(String::new()));
    let retry = Disposition::Retry { rung: 0 };
    let ladder = ladder(3);
    for (disposition, event, letter, waits, expected) in [
        (&answer, true, None, 0, Wait),
        (&answer, true, None, 2, Wait),
        (&answer, true, None, 3, OwnQueue),
        (&malformed, false, Some(Refused), 0, DropLetter),
        (&malformed, true, Some(Refused), 0, Wait),
        (&malformed, true, Some(Refused), 3, OwnQueue),
        (&malformed, false, Some(Unanswered), 0, Wait),
        (&malformed, false, Some(Unanswered), 9, Wait),
        (&malformed, true, Some(Unanswered), 9, Wait),
        (&malformed, true, None, 0, OwnQueue),
        (&exhausted, false, Some(Refused), 0, Wait),
        (&exhausted, false, Some(Refused), 9, Wait),
        (&exhausted, true, Some(Refused), 9, Wait),
        (&exhausted, false, Some(Unanswered), 9, Wait),
        (&exhausted, true, None, 0, OwnQueue),
        (&retry, false, None, 9, Wait),
    ] {
        let messages = UnconfirmedMessages { event, letter };
        let recourse = disposition.recourse(messages, waits, &ladder);
        assert_eq!(recourse, expected, "{disposition:?} {messages:?} {waits}");
    }
}

#[test]
fn without_a_rung_the_event_goes_to_the_own_queue() {
    let Disposition::DeadLetter { event, .. } = letter(Failure::Malformed(String::new())) else {
        panic!("it is dead-lettered");
    };
    let messages = UnconfirmedMessages {
        event: true,
        letter: None,
    };
    let recourse = Disposition::Answer(event).recourse(messages, 0, &ladder(0));
    assert_eq!(recourse, Recourse::OwnQueue);
}

#[test]
fn a_request_set_aside_waits_without_being_counted() {
    let envelope = |waits| Envelope {
        client: "c".into(),
        waits,
        ..Envelope::default()
    };
    let body = br#"{"usage_id": "0d000000-0000-4000-8000-000000000001", "amount": 1,
        "org_id": "0d000000-0000-4000-8000-000000000002"}"#;
    let (ladder, now) = (ladder(2), Timestamp::UNIX_EPOCH);
    let Reading::Request(request) = read(&envelope(0), body, &LIMITS, true, &ladder, now) else {
        panic!("it is a request");
    };
    let set_aside = |waits, aside| {
        let failure = Failure::Unavailable(String::new());
        let decision = Decision::SetAside(failure, aside);
        dispose(&envelope(waits), body, &request, &decision, &ladder, now)
    };
    for aside in [Aside::Untried, Aside::Server(String::new())] {
        let rungs: Vec<_> = (0..4)
            .map(|waits| set_aside(waits, aside.clone()))
            .collect();
        let expected = [0, 1, 1, 1].map(|rung| Disposition::Wait { rung });
        assert_eq!(rungs, expected);
    }
    assert_eq!(set_aside(1, Aside::Room), Disposition::Wait { rung: 1 });
    assert_eq!(set_aside(2, Aside::Room), Disposition::Retry { rung: 0 });
}

fn ladder_of(seconds: &[u64]) -> Ladder {
    Ladder {
        delays: seconds.iter().copied().map(Duration::from_secs).collect(),
        usage_not_found_attempts: 0,
    }
}

fn claimed(since: Option<Timestamp>) -> Envelope {
    Envelope {
        client: "former".into(),
        claim: Some(ClientClaim {
            names: vec!["client".into()],
            since,
        }),
        attempts: 2,
        ..Envelope::default()
    }
}

fn done(envelope: &Envelope, ladder: &Ladder, now: Timestamp) -> Disposition {
    match read(envelope, b"rubbish", &LIMITS, true, ladder, now) {
        Reading::Done(disposition) => disposition,
        other @ (Reading::Request(_) | Reading::Group(_)) => panic!("{other:?}"),
    }
}

#[test]
fn an_untrusted_claim_waits_on_the_longest_rung() {
    let now = Timestamp::UNIX_EPOCH;
    let (hour, day) = (
        SignedDuration::from_hours(1),
        SignedDuration::from_hours(24),
    );
    let ladder = ladder_of(&[1, 30, 5]);
    for since in [None, Some(now), Some(now - hour), Some(now + hour)] {
        let waits = done(&claimed(since), &ladder, now);
        assert_eq!(waits, Disposition::AwaitTrust { rung: 1 }, "{since:?}");
    }
    assert_eq!(attempts(&claimed(None)), 2, "none is used up");
    let Disposition::DeadLetter { failure, event } = done(&claimed(Some(now - day)), &ladder, now)
    else {
        panic!("it waited for a day");
    };
    assert_eq!(failure.code().number, 14);
    let told = String::from_utf8(event.body).expect("JSON");
    assert!(
        !told.contains("former") && !told.contains("client\""),
        "{told}"
    );
}

#[test]
fn without_a_rung_a_request_is_dead_lettered() {
    let gone = done(&claimed(None), &ladder_of(&[]), Timestamp::UNIX_EPOCH);
    assert!(matches!(gone, Disposition::DeadLetter { .. }), "{gone:?}");
}
