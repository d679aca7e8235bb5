//! Logins that a server refused, by cause.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// No id and secret in the form that they must have.
    NoCredentials,
    /// The broker knows no such id and secret.
    WrongSecret,
    /// It said so of the same pair a moment ago, and was not asked again.
    Repeated,
    /// Wrong secrets of that id came from that address before, and the broker was not asked.
    BackOff,
    /// The broker keeps the client from the virtual host.
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
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let refused = Family::<Reason, Counter>::default();
        registry.register(
            "revertd_logins_refused",
            "Requests over HTTP that were refused for want of a login, by cause",
            refused.clone(),
        );
        for refusal in LoginRefusal::ALL {
            drop(refused.get_or_create(&refusal.label()));
        }
        Self(refused)
    }

    /// One more.
    pub fn refused(&self, refusal: LoginRefusal) {
        self.0.get_or_create(&refusal.label()).inc();
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self, refusal: LoginRefusal) -> u64 {
        self.0.get_or_create(&refusal.label()).get()
    }
}
