//! A connection and what it says of itself: that it is blocked, and why it ended.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for a connection to report why it ended.
const REPORT_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection and what it reports of itself.
pub struct WatchedConnection {
    pub connection: Connection,
    report: watch::Receiver<Report>,
}

#[derive(Default)]
struct Report {
    /// Why the broker takes nothing, while it doesn't.
    blocked: Option<String>,
    /// What ended the connection.
    error: Option<lapin::Error>,
}

impl WatchedConnection {
    pub fn new(connection: Connection) -> Self {
        let (sender, report) = watch::channel(Report::default());
        let mut events = connection.events_listener().boxed();
        // Ends with the connection, or when no receiver is left.
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                sender.send_modify(|report| match event {
                    Event::ConnectionBlocked(why) => report.blocked = Some(why),
                    Event::ConnectionUnblocked => report.blocked = None,
                    Event::Error(error) => {
                        report.error.get_or_insert(error);
                    }
                    _ => {}
                });
                if sender.is_closed() {
                    return;
                }
            }
        });
        Self { connection, report }
    }

    /// The error that ended it, where one did. It is reported a moment after the connection shows
    /// its end.
    pub async fn error(&self) -> Option<lapin::Error> {
        if self.connection.status().connected() {
            return None;
        }
        let mut report = self.report.clone();
        let reported = report.wait_for(|report| report.error.is_some());
        let report = timeout(REPORT_TIMEOUT, reported).await.ok()?.ok()?;
        report.error.clone()
    }

    /// Returns once the broker says that it takes nothing at present, and why.
    pub async fn blocked(&self) -> String {
        let mut report = self.report.clone();
        let blocked = report.wait_for(|report| report.blocked.is_some()).await;
        match blocked.ok().and_then(|report| report.blocked.clone()) {
            Some(why) => why,
            // The connection is gone, which shows elsewhere.
            None => std::future::pending().await,
        }
    }

    /// Returns once the broker takes messages again, or the connection is gone.
    pub async fn unblocked(&self) {
        let mut report = self.report.clone();
        let over = |report: &Report| report.blocked.is_none() || report.error.is_some();
        // An error means that the connection ended.
        let _ = report.wait_for(over).await;
    }
}
