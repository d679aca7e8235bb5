//! Durations and times as arguments give them.

use std::time::Duration;

use jiff::Timestamp;

/// Longest duration of an argument.
const SPAN_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// A duration as an argument gives it; one without end could not be counted from now.
pub fn time_span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span > SPAN_MAX {
        return Err(format!(
            "must be at most {}",
            humantime::format_duration(SPAN_MAX)
        ));
    }
    Ok(span)
}

/// A time as an argument gives it, or an age.
pub fn timestamp(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).ok();
    ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok())
        .ok_or_else(|| "must be a time such as 2026-11-25T08:00:00Z, or an age such as 2h".into())
}
