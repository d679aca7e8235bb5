use super::*;

fn work(messages: u32) -> Vec<QueueDepth> {
    vec![QueueDepth {
        queue: "work".into(),
        kind: QueueKind::Work,
        max_bytes: 1,
        messages: Some(messages),
    }]
}

/// A process that consumes, and gave a batch up.
fn given_up() -> ProcessStatus {
    let status = ProcessStatus::new(Connections::default);
    status.consuming();
    drop(status.take(3));
    // The clock has to go on for an age to be one.
    while status.now().oldest() == Duration::ZERO {
        std::hint::spin_loop();
    }
    status
}

#[test]
fn the_oldest_age_grows_until_something_is_settled() {
    let status = given_up();
    status.queues(work(3));
    assert!(status.now().oldest() > Duration::ZERO);
    status.take(1).settled();
    assert_eq!(status.now().oldest(), Duration::ZERO);
}

#[test]
fn a_message_taken_over_no_longer_ages_here() {
    let status = given_up();
    status.not_consuming();
    status.queues(work(0));
    assert!(
        status.now().oldest() > Duration::ZERO,
        "nobody here would be given it"
    );
    status.consuming();
    status.queues(work(0));
    assert_eq!(status.now().oldest(), Duration::ZERO);
}
