//! Certificates of the tests, signed by the authority of the servers' instance or by an unknown
//! one; and a proxy that shows a chosen certificate in front of a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::environment;

/// As `tests/support/servers` names it.
const AUTHORITY: &str = "revertd test authority";

/// A variable that the servers' instance exports.
fn exported(name: &str) -> String {
    let set = std::env::var(name).ok();
    let found = set.or_else(|| match std::env::var("REVERTD_DATABASE__URL") {
        Ok(_) => None,
        Err(_) => environment("dev").remove(name),
    });
    found.unwrap_or_else(|| panic!("{name} must be set as tests/support/servers sets it"))
}

/// The address of the broker's encrypted port, with the login of `REVERTD_AMQP__URL`.
pub fn amqps_url() -> String {
    exported("REVERTD_TEST_AMQPS_URL")
}

/// The instance whose servers are used.
pub fn instance() -> String {
    exported("REVERTD_TEST_INSTANCE")
}

/// The file of the authority that signed the servers' certificates.
pub fn ca_file() -> String {
    format!("{}/ca.pem", exported("REVERTD_TEST_TLS"))
}

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as files.
pub struct Issued {
    folder: TempDir,
}

impl Authority {
    /// The one that the servers of the tests trust, and are signed by.
    pub fn of_the_servers() -> Self {
        let folder = PathBuf::from(exported("REVERTD_TEST_TLS"));
        let read = |name| std::fs::read_to_string(folder.join(name)).expect("the instance's own");
        let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
        Self {
            issuer: Issuer::new(named(AUTHORITY), key),
            pem: read("ca.pem"),
        }
    }

    /// An authority of the same name that no server trusts.
    pub fn stranger() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = named(AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A client's certificate: the name is its common name.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(&named(name))
    }

    /// A server's certificate for those hosts.
    pub fn server(&self, hosts: &[&str]) -> Issued {
        self.issue(&for_hosts(hosts))
    }

    /// The same, long expired.
    pub fn expired_server(&self, hosts: &[&str]) -> Issued {
        let mut params = for_hosts(hosts);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let folder = TempDir::new().expect("a folder");
        let write = |name, text: &str| std::fs::write(folder.path().join(name), text);
        write("cert.pem", &cert.pem()).expect("written");
        write("key.pem", &key.serialize_pem()).expect("written");
        write("ca.pem", &self.pem).expect("written");
        Issued { folder }
    }
}

impl Issued {
    pub fn cert(&self) -> String {
        self.file("cert.pem")
    }

    pub fn key(&self) -> String {
        self.file("key.pem")
    }

    /// The authority that signed it.
    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn for_hosts(hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    CertificateParams::new(hosts).expect("names of hosts")
}

/// How a client asks a server to encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsNegotiation {
    /// TLS begins with the first byte.
    Immediate,
    /// PostgreSQL's `SSLRequest`, which the proxy accepts.
    Postgres,
    /// PostgreSQL's `SSLRequest`, which the proxy declines.
    PostgresDeclines,
}

/// A listener that shows a certificate of the test and forwards the decrypted bytes. It ends when
/// dropped.
pub struct TlsProxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsProxy {
    /// In front of `server`, an address without TLS.
    pub async fn to(server: &str, negotiation: TlsNegotiation, shown: &Issued) -> Self {
        let acceptor = acceptor(&shown.cert(), &shown.key());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = server.to_owned();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), negotiation, acceptor.clone()));
            }
        });
        Self { address, accepting }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Errors are left to the client to report.
async fn pass(
    mut client: TcpStream,
    server: String,
    negotiation: TlsNegotiation,
    acceptor: TlsAcceptor,
) {
    if negotiation != TlsNegotiation::Immediate {
        let mut question = [0; 8];
        if client.read_exact(&mut question).await.is_err() {
            return;
        }
        let yes = negotiation == TlsNegotiation::Postgres;
        let _ = client.write_all(if yes { b"S" } else { b"N" }).await;
        if !yes {
            return;
        }
    }
    let Ok(mut clear) = acceptor.accept(client).await else {
        return;
    };
    let mut server = TcpStream::connect(server)
        .await
        .expect("the server listens");
    let _ = copy_bidirectional(&mut clear, &mut server).await;
}

fn acceptor(cert: &str, key: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(Path::new(cert)).expect("PEM");
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(Path::new(key)).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}
