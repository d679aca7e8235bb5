//! The counts of the process, and its warnings, at most one a minute for each kind of fault.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

use crate::broker::BrokerError;
use crate::common::log_limit::LogLimit;
use crate::telemetry::{LoginRefusal, Logins, Registry};

/// A counter.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a request got no event.
#[derive(Clone, Copy, Debug)]
pub enum GatewayFault {
    Unroutable,
    Full,
    Forbidden,
    Barred,
    Broker,
    Lost,
    NoAnswer,
    Saturated,
    Share,
    Logins,
}

impl GatewayFault {
    const KINDS: usize = 10;

    /// The code of its log line.
    fn event_code(self) -> &'static str {
        match self {
            Self::Unroutable => "request_unroutable",
            Self::Full => "work_queue_full",
            Self::Forbidden => "write_denied",
            Self::Barred => "vhost_denied",
            Self::Broker => "broker_unavailable",
            Self::Lost => "connection_lost",
            Self::NoAnswer => "event_timeout",
            Self::Saturated => "gateway_saturated",
            Self::Share => "client_saturated",
            Self::Logins => "logins_saturated",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Unroutable => {
                "answered 503: no queue is bound to the request exchange; start `revertd worker` \
                 once, which declares it"
            }
            Self::Full => {
                "answered 503: the work queue is full; check that workers run and keep up"
            }
            Self::Forbidden => {
                "answered 403: the client may not write to the request exchange; rabbitmqctl \
                 set_permissions -p VHOST USER CONFIGURE WRITE READ grants it"
            }
            Self::Barred => {
                "answered 403: the client may not use the virtual host; rabbitmqctl \
                 set_permissions -p VHOST USER CONFIGURE WRITE READ grants it"
            }
            Self::Broker => "answered 503: the gateway cannot work with the broker",
            Self::Lost => {
                "answered 503: the gateway lost a connection to the broker with requests in flight"
            }
            Self::NoAnswer => {
                "answered 504: no event arrived within gateway.timeout; check that workers run and \
                 keep up, and that amqp.reply_to_pattern allows amq.gen- queues"
            }
            Self::Saturated => {
                "answered 503: gateway.max_in_flight requests are in flight; raise it, or start \
                 more gateways"
            }
            Self::Share => {
                "answered 429: the client has a tenth of gateway.max_in_flight requests in flight, \
                 which is the limit of one client"
            }
            Self::Logins => "answered 503: too many logins wait for the broker",
        }
    }
}

/// Counts of the process.
pub struct GatewayMetrics {
    pub reverted: Count,
    pub rejected: Count,
    /// Groups that have a result for each request.
    pub groups: Count,
    pub unanswered: Count,
    pub unavailable: Count,
    pub logins: Logins,
    warned: [LogLimit; GatewayFault::KINDS],
}

impl GatewayMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            reverted: Count::default(),
            groups: Count::default(),
            rejected: Count::default(),
            unanswered: Count::default(),
            unavailable: Count::default(),
            logins: Logins::new(registry),
            warned: std::array::from_fn(|_| LogLimit::default()),
        }
    }

    /// Warns of a fault, at most once a minute for each kind. `detail` names the queue, limit or
    /// request.
    pub fn warn(&self, fault: GatewayFault, client: &str, detail: &dyn fmt::Display) {
        if let Some(cases) = self.warned[fault as usize].note(1) {
            let event = fault.event_code();
            warn!(event, client, cases, %detail, "{}", fault.message());
        }
    }

    /// As `warn`, for a fault that has an error.
    pub fn warn_of_error(&self, fault: GatewayFault, client: &str, error: &BrokerError) {
        if let Some(cases) = self.warned[fault as usize].note(1) {
            let event = fault.event_code();
            warn!(event, client, cases, %error, "{}", fault.message());
        }
    }
}

impl fmt::Display for GatewayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reverted={} rejected={} groups={} unanswered={} unavailable={} logins_refused={}",
            self.reverted.get(),
            self.rejected.get(),
            self.groups.get(),
            self.unanswered.get(),
            self.unavailable.get(),
            self.logins.count(LoginRefusal::WrongSecret)
        )
    }
}
