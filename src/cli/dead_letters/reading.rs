//! The dead-letter queue opened, and whether all of it was read.

use std::process::ExitCode;

use crate::broker::QueueReader;
use crate::config::Settings;

/// Opens the queue. What others hold is not seen, which is said once.
pub async fn open(settings: &Settings, body_bytes: u64) -> anyhow::Result<QueueReader> {
    let queue = settings.topology.dead_letter_queue.as_str();
    let browse = QueueReader::open(settings, queue, body_bytes).await?;
    if browse.others() > 0 {
        say!(
            "revertd: {} other reader(s) of {queue} at this moment; the letters in their hands \
            are not seen here",
            browse.others()
        );
    }
    Ok(browse)
}

/// Says how many letters were counted and not read. Where there are such, what was read is not all,
/// and the command fails.
pub fn all_read(browse: &QueueReader) -> bool {
    let (missing, waiting) = (browse.missing(), browse.waiting());
    if missing > 0 {
        say!(
            "revertd: {missing} of the {waiting} letters that were counted could not be read: \
            others hold them or took them, or they expired meanwhile"
        );
    }
    missing == 0
}

/// What the shell is told of it.
pub fn exit_code(is_all_read: bool) -> ExitCode {
    if is_all_read {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
