//! Counters of refused logins, by cause.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// The request has no valid id and secret.
    NoCredentials,
    /// The broker refused this id and secret.
    WrongSecret,
    /// The broker refused the same id and secret a moment ago; the gateway did not ask it again.
    Repeated,
    /// This address sent wrong secrets of this id before; the gateway did not ask the broker.
    BackOff,
    /// The broker denies the client the virtual host.
    VirtualHost,
}

impl LoginRefusal {
    const ALL: [Self; 5] = [
        Self::NoCredentials,
        Self::WrongSecret,
        Self::Repeated,
        Self::BackOff,
        Self::VirtualHost,
    ];

    fn label(self) -> Reason {
        let reason = match self {
            Self::NoCredentials => "no_credentials",
            Self::WrongSecret => "wrong_secret",
            Self::Repeated => "repeated",
            Self::BackOff => "back_off",
            Self::VirtualHost => "virtual_host",
        };
        Reason { reason }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counters of refused logins.
#[derive(Clone, Debug)]
pub struct Logins(Family<Reason, Counter>);

impl Logins {
    /// Creates the counters and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let refused = Family::<Reason, Counter>::default();
        registry.register(
            "revertd_logins_refused",
            "HTTP requests that were refused because their login failed, by cause",
            refused.clone(),
        );
        for refusal in LoginRefusal::ALL {
            drop(refused.get_or_create(&refusal.label()));
        }
        Self(refused)
    }

    /// Counts a refused login.
    pub fn refused(&self, refusal: LoginRefusal) {
        self.0.get_or_create(&refusal.label()).inc();
    }

    /// The number of logins refused for this cause.
    #[must_use]
    pub fn count(&self, refusal: LoginRefusal) -> u64 {
        self.0.get_or_create(&refusal.label()).get()
    }
}
