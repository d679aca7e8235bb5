//! Counts of the process, and its warnings: each kind of fault at most once a minute.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

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

/// Why a request got no regular answer.
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

    fn told(self) -> &'static str {
        match self {
            Self::Unroutable => {
                "answered 503: no queue is bound to the request exchange; start `revertd worker` once, which \
                 declares it"
            }
            Self::Full => "answered 503: the work queue is full; see that workers run and keep up",
            Self::Forbidden => {
                "answered 403: the client may not write to the request exchange; rabbitmqctl set_permissions"
            }
            Self::Barred => {
                "answered 403: the client may not use the virtual host; rabbitmqctl set_permissions"
            }
            Self::Broker => "answered 503: the broker can't be worked with",
            Self::Lost => {
                "answered 503: a connection to the broker was lost under requests in flight"
            }
            Self::NoAnswer => {
                "answered 504: no event within gateway.timeout; see that workers run and keep up, and that \
                 amqp.reply_to_pattern allows amq.gen- queues"
            }
            Self::Saturated => "answered 503: gateway.max_in_flight requests are in work",
            Self::Share => {
                "answered 429: the client has as many requests in work as one may, a tenth of gateway.max_in_flight"
            }
            Self::Logins => "answered 503: too many logins wait for the broker",
        }
    }
}

/// Counts of the process.
pub struct GatewayMetrics {
    pub reverted: Count,
    pub rejected: Count,
    pub unanswered: Count,
    pub unavailable: Count,
    pub logins: Logins,
    warned: [LogLimit; GatewayFault::KINDS],
}

impl GatewayMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            reverted: Count::default(),
            rejected: Count::default(),
            unanswered: Count::default(),
            unavailable: Count::default(),
            logins: Logins::new(registry),
            warned: std::array::from_fn(|_| LogLimit::default()),
        }
    }

    /// Logs a warning, at most once a minute for each kind. `detail` names the object of the fault.
    pub fn warn(&self, trouble: GatewayFault, client: &str, detail: &dyn fmt::Display) {
        if let Some(cases) = self.warned[trouble as usize].note(1) {
            warn!(client, cases, %detail, "{}", trouble.told());
        }
    }
}

impl fmt::Display for GatewayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reverted={} rejected={} unanswered={} unavailable={} logins_refused={}",
            self.reverted.get(),
            self.rejected.get(),
            self.unanswered.get(),
            self.unavailable.get(),
            self.logins.count(LoginRefusal::WrongSecret)
        )
    }
}
