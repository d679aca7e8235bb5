//! TLS to both servers: what a server must show, what we show, and what is wrong where either does not do.
//!
//! The only room that configures TLS. A server's certificate is always verified in full: its chain, its times, its host
//! name. There is no way to encrypt without that. It must not know AMQP, PostgreSQL, or what is sent.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{HeldFile, Identity, TlsFiles};

mod fault;

pub use fault::{Fault, fault};

/// An encrypted connection to a server that was verified.
pub type Stream = Box<tokio_rustls::client::TlsStream<TcpStream>>;

/// A file does not hold what its key is for.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct TlsError(String);

/// What `files` say, as the client of either server takes it.
///
/// # Errors
/// Which key's file does not hold what it should.
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
        TlsError(format!(
            "{section}.key_file: {key} holds no private key that can be read; it must be PEM, unencrypted, \
             PKCS#8, SEC1 or PKCS#1"
        ))
    })?;
    config.with_client_auth_cert(chain, private).map_err(|error| {
        TlsError(format!(
            "{section}.cert_file and {section}.key_file: {cert} and {key} don't do together: {error}; the key \
             must be that of the first certificate"
        ))
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
            TlsError(format!(
                "{key}: {file} holds a certificate that can't be used: {error}"
            ))
        })?;
    }
    Ok(roots)
}

fn authorities_of_system(section: &str) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError(format!(
            "{section}.ca_file is not set, and this system trusts no authority ({}); set it, or install the \
             system's certificates (package ca-certificates)",
            if why.is_empty() {
                "none found".into()
            } else {
                why.join("; ")
            }
        )));
    }
    Ok(roots)
}

fn certificates(key: &str, file: &HeldFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.content()).collect();
    let read =
        read.map_err(|error| TlsError(format!("{key}: {file} can't be read as PEM: {error}")))?;
    if read.is_empty() {
        return Err(TlsError(format!(
            "{key}: {file} holds no certificate; it must be PEM: -----BEGIN CERTIFICATE-----"
        )));
    }
    Ok(read)
}
