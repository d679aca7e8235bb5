//! Publishes a request that must be refused.

use serde_json::Value;

use crate::support::*;

/// Publishes a request and returns its event. A refusal must not change the ledger.
pub async fn refusal(env: &TestEnv, events: &mut Mailbox, request: Request) -> Message {
    let before = env.count("SELECT count(*) FROM billing_transactions").await;
    env.publish(&request).await;
    let event = events.answer(&request).await;
    let after = env.count("SELECT count(*) FROM billing_transactions").await;
    assert_eq!(before, after, "a refusal writes no entry");
    assert_eq!(event.json()["type"], "usage.revert.rejected");
    event
}

pub fn error(event: &Message) -> Value {
    event.json()["data"]["error"].clone()
}
