//! Retry queues that are there and that no delay of the configuration names: of a ladder before.
//!
//! Their messages go back to the work queue by themselves, and no worker puts any there. Only the
//! management API lists queues.

use crate::broker::error::BrokerError;
use crate::broker::management::Management;
use crate::config::Settings;

/// The retry queues of another ladder than the configured one; none where there is no management
/// API to ask.
///
/// # Errors
/// Where it does not answer.
pub async fn other_rungs(settings: &Settings) -> Result<Vec<String>, BrokerError> {
    let Some(management) = Management::new(settings) else {
        return Ok(Vec::new());
    };
    let found = others(&management, settings).await;
    let found = found.map_err(|error| {
        BrokerError::transient(format!(
            "whether there are retry queues of another ladder: {error}"
        ))
    })?;
    Ok(found.into_iter().map(|(name, _)| name).collect())
}

/// The same with how many messages each holds.
pub async fn others(
    management: &Management,
    settings: &Settings,
) -> Result<Vec<(String, u64)>, crate::broker::management::Unanswered> {
    let begin = format!("{}.", settings.topology.retry_queue_prefix);
    let known = settings.retry_queues();
    let mut found = management
        .queues(&format!("^{}", regex::escape(&begin)))
        .await?;
    found.retain(|(name, _)| name.starts_with(&begin) && !known.contains(name));
    Ok(found)
}
