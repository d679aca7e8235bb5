//! Durations as arguments give them.

use std::time::Duration;

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
