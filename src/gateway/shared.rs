//! State that all requests of the gateway share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::metrics::GatewayMetrics;
use super::sessions::Sessions;
use crate::broker::ReplyRouter;
use crate::common::http_server::Shares;
use crate::config::Settings;
use crate::telemetry::Http;

/// State that all requests share.
pub struct Gateway {
    pub settings: Arc<Settings>,
    pub sessions: Sessions,
    pub replies: ReplyRouter,
    /// Requests that are published and not answered. A large group takes several.
    pub places: Semaphore,
    /// Requests of each client, from their head on. A large group counts as several.
    pub shares: Shares<String>,
    pub metrics: Arc<GatewayMetrics>,
    pub http: Http,
}

impl Gateway {
    /// Closes the connections to the broker.
    pub async fn close(&self) {
        tokio::join!(self.sessions.close(), self.replies.close());
    }
}
