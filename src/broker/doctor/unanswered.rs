//! Checks that the management API does not answer.

use crate::broker::management::Unanswered;
use crate::common::check::Checks;

/// An answer that there isn't is no fault of the broker's.
pub fn unanswered(id: &'static str, error: &Unanswered, checks: &mut Checks) {
    let why = error.to_string();
    match error {
        Unanswered::NoPlugin(_) | Unanswered::Missing => checks.skipped_until(
            id,
            why,
            "rabbitmq-plugins enable rabbitmq_management, or correct amqp.management_url",
        ),
        Unanswered::Forbidden(_) => checks.skipped_until(
            id,
            why,
            "rabbitmqctl set_user_tags USER monitoring, for the user of amqp.url or of \
             amqp.management_url (a few questions require the tag administrator)",
        ),
        Unanswered::Failed(problem) => {
            let problem = problem.clone().prefixed("the management API fails: ");
            match problem.remedy {
                Some(remedy) => checks.skipped_until(id, problem.message, remedy),
                None => checks.skipped(id, problem.message),
            }
        }
    }
}
