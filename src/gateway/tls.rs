//! TLS 1.2 and 1.3 with the operator's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config;

/// The TLS acceptor; `None` if certificate and key are not configured.
///
/// # Errors
/// If a file can't be used: which one, and why.
pub fn acceptor(settings: &config::GatewaySettings) -> Result<Option<TlsAcceptor>, String> {
    let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) else {
        return Ok(None);
    };
    let provider = Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .map_err(|error| {
            format!("gateway.cert_file and gateway.key_file do not belong together: {error}")
        })?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |fault: String| {
        let path = path.display();
        format!(
            "gateway.cert_file: {path} {fault}; it must hold the certificate, and those of its \
            issuers, as PEM"
        )
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(failed("holds no certificate".into())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(format!("can't be read ({error})"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let path = path.display();
        format!(
            "gateway.key_file: {path} can't be read ({error}); it must hold the private key, as PEM"
        )
    })
}
