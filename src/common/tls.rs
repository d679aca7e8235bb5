//! TLS to both servers: the certificates of the server and of the client, and the faults of either.
//!
//! The only module that configures TLS as a client. A server's certificate is always verified in
//! full: its chain, its times, its host name. There is no way to encrypt without that. It must not
//! know AMQP, PostgreSQL, or what is sent.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::diagnostic::Diagnostic;
use crate::config::{HeldFile, Identity, TlsFiles};

mod fault;

pub use fault::{Fault, TlsError, fault};

/// An encrypted connection to a server that was verified.
pub type Stream = Box<tokio_rustls::client::TlsStream<TcpStream>>;

/// The configuration of a TLS client that `files` make.
///
/// # Errors
/// The key whose file cannot be used.
pub fn config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let section = files.section;
    let roots = match &files.ca {
        Some(file) => authorities(section, file)?,
        None => authorities_of_system(section)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let Some(Identity { cert, key }) = &files.identity else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(&format!("{section}.cert_file"), cert)?;
    let private = PrivateKeyDer::from_pem_slice(key.content()).map_err(|_| {
        let text = format!("{section}.key_file: {key} holds no private key that can be read");
        let remedy = "it must be PEM, unencrypted, PKCS#8, SEC1 or PKCS#1";
        TlsError(Diagnostic::new(text).remedy(remedy))
    })?;
    config
        .with_client_auth_cert(chain, private)
        .map_err(|error| {
            let keys = format!("{section}.cert_file and {section}.key_file");
            let text = format!("{keys}: {cert} and {key} do not match: {error}");
            TlsError(Diagnostic::new(text).remedy("the key must be that of the first certificate"))
        })
}

/// Encrypts a connection, once the server has shown that it is `host`.
///
/// # Errors
/// Where the server can't be verified, or the connection fails; [`fault`] tells which.
pub async fn connect(files: &TlsFiles, host: &str, stream: TcpStream) -> io::Result<Stream> {
    let config = config(files).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let connector = TlsConnector::from(Arc::new(config));
    // Boxed, since what a handshake holds is large.
    Box::pin(async move { connector.connect(name, stream).await.map(Box::new) }).await
}

/// Whether what goes to that host stays on this machine.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let loopback = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    loopback || host == "localhost" || host.ends_with(".localhost")
}

fn authorities(section: &str, file: &HeldFile) -> Result<RootCertStore, TlsError> {
    let key = format!("{section}.ca_file");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&key, file)? {
        roots.add(certificate).map_err(|error| {
            let text = format!("{key}: {file} holds a certificate that cannot be used: {error}");
            TlsError(text.into())
        })?;
    }
    Ok(roots)
}

fn authorities_of_system(section: &str) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let errors = if errors.is_empty() {
            "none found".into()
        } else {
            errors.join(", ")
        };
        let text =
            format!("{section}.ca_file is not set, and this system trusts no authority ({errors})");
        return Err(TlsError(Diagnostic::new(text).remedy(
            "set it, or install the system's certificates (package ca-certificates)",
        )));
    }
    Ok(roots)
}

fn certificates(key: &str, file: &HeldFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.content()).collect();
    let read = read.map_err(|error| {
        TlsError(format!("{key}: {file} cannot be read as PEM: {error}").into())
    })?;
    if read.is_empty() {
        let problem = Diagnostic::new(format!("{key}: {file} holds no certificate"));
        let remedy = "it must be PEM: -----BEGIN CERTIFICATE-----";
        return Err(TlsError(problem.remedy(remedy)));
    }
    Ok(read)
}
