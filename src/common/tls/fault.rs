//! What a failed connection says of TLS, told by the type of the error, never by its text.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as Tls};

use super::TlsError;

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// To follow the name of the server.
    pub what: String,
    /// Whether waiting alone won't mend it.
    pub lasting: bool,
}

/// The fault of TLS within `error`, where there is one. `section` is that of the keys to look at.
#[must_use]
pub fn fault(error: &(dyn Error + 'static), section: &str) -> Option<Fault> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Tls>() {
            return Some(of_tls(tls, section));
        }
        if error.is::<TlsError>() {
            let what = format!("can't be connected to: {error}");
            return Some(Fault {
                what,
                lasting: true,
            });
        }
        cause = match error.downcast_ref::<io::Error>() {
            // Whose own source would be that of what it wraps.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn of_tls(error: &Tls, section: &str) -> Fault {
    let lasting = |what: String| Fault {
        what,
        lasting: true,
    };
    let passing = |what: String| Fault {
        what,
        lasting: false,
    };
    match error {
        Tls::InvalidCertificate(cause) => match cause {
            // The last two: an authority of the right name has another key, as after its renewal.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                lasting(format!(
                    "shows a certificate that no trusted authority signed; set {section}.ca_file to the PEM file of the \
                 authority that did, or, without that key, have the system trust it"
                ))
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                lasting(format!(
                    "shows a certificate that has expired ({error}); renew the server's certificate, and check this \
                 machine's clock"
                ))
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                passing(format!(
                    "shows a certificate that is not valid yet ({error}); check this machine's clock and the server's \
                 certificate"
                ))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                lasting(format!(
                    "shows a certificate for another host ({error}); write in {section}.url a name that stands in the \
                 certificate's subjectAltName, or have one issued for this name"
                ))
            }
            _ => lasting(format!(
                "shows a certificate that can't be used ({error}); it must be the server's own, signed by an \
                 authority of {section}.ca_file, and not that authority's itself"
            )),
        },
        Tls::InvalidMessage(_) => lasting(format!(
            "does not speak TLS ({error}); switch TLS on there, or correct the port in {section}.url"
        )),
        Tls::AlertReceived(alert) if is_about_us(*alert) => lasting(format!(
            "refuses our certificate, or that we show none ({error}); check {section}.cert_file and \
             {section}.key_file, and which authorities the server accepts clients of"
        )),
        Tls::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName,
        )
        | Tls::PeerIncompatible(_) => lasting(format!(
            "can't agree on how to encrypt ({error}); have the server offer TLS 1.2 or 1.3 with its usual suites"
        )),
        _ => passing(format!("fails at TLS ({error})")),
    }
}

/// Whether a server so answers the certificate that it was shown, or the want of one.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}
