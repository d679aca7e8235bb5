//! The TLS fault within a failed connection, told by the type of the error, never by its text.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as Tls};

use crate::common::diagnostic::Diagnostic;

/// A file of the configuration cannot be used for TLS.
#[derive(Clone, Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct TlsError(pub(super) Diagnostic);

impl From<TlsError> for Diagnostic {
    fn from(TlsError(problem): TlsError) -> Self {
        problem.prefixed("configuration: ")
    }
}

/// A TLS fault of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its message follows the name of the server.
    pub problem: Diagnostic,
    /// Whether it remains until an operator removes its cause.
    pub permanent: bool,
}

/// The fault of TLS within `error`, where there is one. `section` is that of the keys to look at.
#[must_use]
pub fn fault(error: &(dyn Error + 'static), section: &str) -> Option<Fault> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<Tls>() {
            return Some(of_tls(tls, section));
        }
        if let Some(error) = error.downcast_ref::<TlsError>() {
            let problem = Diagnostic::from(error.clone());
            return Some(Fault {
                problem: problem.prefixed("cannot be connected to: "),
                permanent: true,
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
    let (problem, permanent) = match error {
        Tls::InvalidCertificate(cause) => return of_certificate(cause, error, section),
        Tls::InvalidMessage(_) => (
            Diagnostic::new(format!("does not speak TLS ({error})")).remedy(format!(
                "enable TLS on the server, or correct the port in {section}.url"
            )),
            true,
        ),
        Tls::AlertReceived(alert) if is_about_client(*alert) => (
            Diagnostic::new(format!(
                "refuses the client certificate, or requires one ({error})"
            ))
            .remedy(format!(
                "check {section}.cert_file and {section}.key_file, and the authorities whose \
                     client certificates the server accepts"
            )),
            true,
        ),
        Tls::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName,
        )
        | Tls::PeerIncompatible(_) => (
            Diagnostic::new(format!(
                "shares no TLS version or cipher suite with revertd ({error})"
            ))
            .remedy("enable TLS 1.2 or 1.3 with the usual cipher suites on the server"),
            true,
        ),
        _ => (
            Diagnostic::new(format!("failed the TLS handshake ({error})")),
            false,
        ),
    };
    Fault { problem, permanent }
}

fn of_certificate(cause: &CertificateError, error: &Tls, section: &str) -> Fault {
    let (problem, permanent) = match cause {
        // The last two: an authority of the right name has another key, as after its renewal.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            Diagnostic::new("presents a certificate that no trusted authority signed").remedy(
                format!(
                    "set {section}.ca_file to the PEM file of the authority that signed it, or, \
                     without that key, add the authority to those that the system trusts"
                ),
            ),
            true,
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            Diagnostic::new(format!("presents a certificate that has expired ({error})"))
                .remedy("renew the server's certificate, and check the clock of this machine"),
            true,
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            Diagnostic::new(format!(
                "presents a certificate that is not valid yet ({error})"
            ))
            .remedy("check the clock of this machine and the server's certificate"),
            false,
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            Diagnostic::new(format!("presents a certificate for another host ({error})")).remedy(
                format!(
                    "write in {section}.url a name of the certificate's subjectAltName, or issue a \
                     certificate for this name"
                ),
            ),
            true,
        ),
        _ => (
            Diagnostic::new(format!(
                "presents a certificate that cannot be used ({error})"
            ))
            .remedy(format!(
                "give the server a certificate of its own that an authority of \
                     {section}.ca_file signed, not the certificate of that authority"
            )),
            true,
        ),
    };
    Fault { problem, permanent }
}

/// Whether a server sends this alert because of the client's certificate, or because it got none.
fn is_about_client(alert: AlertDescription) -> bool {
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
