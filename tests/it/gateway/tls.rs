//! HTTPS, where it is configured.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::http::*;
use crate::support::*;

/// A certificate for localhost and its key, configured, and a client that trusts it.
struct Certified {
    _files: tempfile::TempDir,
    trust: RootCertStore,
}

fn certify(env: &mut TestEnv) -> Certified {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfile::tempdir().expect("a folder");
    for (key, name, text) in [
        ("GATEWAY__CERT_FILE", "cert.pem", made.cert.pem()),
        (
            "GATEWAY__KEY_FILE",
            "key.pem",
            made.signing_key.serialize_pem(),
        ),
    ] {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("written");
        env.set(key, path.to_str().expect("UTF-8"));
    }
    let mut trust = RootCertStore::empty();
    trust.add(made.cert.der().clone()).expect("a certificate");
    Certified {
        _files: files,
        trust,
    }
}

#[tokio::test]
async fn with_tls_it_serves_only_tls() {
    let (mut env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let certified = certify(&mut env);
    env.set("GATEWAY__LISTEN", "0.0.0.0:0");
    let mut gateway = env.start_gateway().await;
    gateway.address.set_ip([127, 0, 0, 1].into());
    let request = HttpRequest::revert(customer.account, usage, 5).key("job-1");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(certified.trust.clone())
            .with_no_client_auth();
        let stream = TcpStream::connect(gateway.address)
            .await
            .expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let mut connection = HttpConnection::over(stream.expect("a handshake"));
        connection.write(&request.bytes()).await;
        assert_eq!(connection.response().await.status, 200);
    }
    let mut plain = gateway.connect().await;
    plain.write(&request.bytes()).await;
    assert!(!plain.ended().await.contains("HTTP"), "no HTTP in clear");
    let mut old = gateway.connect().await;
    old.write(&client_hello_of_tls_1_1()).await;
    let told = old.ended().await.into_bytes();
    // An alert, fatal: protocol_version, or handshake_failure.
    assert!(told.first() == Some(&21), "{told:?}");
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    assert!(
        log.contains("tls=true") && !log.contains("in clear"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn listening_unencrypted_beyond_loopback_warns() {
    let mut env = TestEnv::new().await;
    env.set("GATEWAY__LISTEN", "0.0.0.0:0");
    let gateway = env.start_gateway().await;
    let log = gateway.process.log();
    assert!(
        log.contains("in clear text") && log.contains("tls=false"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn unusable_certificate_files_end_the_start() {
    let mut env = TestEnv::new().await;
    let _certified = certify(&mut env);
    let cert = env.setting("GATEWAY__CERT_FILE").expect("set").to_owned();
    let key = env.setting("GATEWAY__KEY_FILE").expect("set").to_owned();
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
    let others = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&others, other.signing_key.serialize_pem()).expect("written");
    let others = others.path().to_str().expect("UTF-8").to_owned();
    for (cert, key, said) in [
        (
            "/nowhere",
            key.as_str(),
            "gateway.cert_file: /nowhere can't be read",
        ),
        (&key, &key, "gateway.cert_file: "),
        (&cert, &cert, "gateway.key_file: "),
        (&cert, &others, "do not belong together"),
    ] {
        env.set("GATEWAY__CERT_FILE", cert);
        env.set("GATEWAY__KEY_FILE", key);
        let mut gateway = env.spawn_gateway();
        assert_eq!(gateway.ended().await.code(), Some(1));
        assert!(gateway.log().contains(said), "{}", gateway.log());
    }
    env.teardown().await;
}

/// A record with the hello of a client that knows TLS 1.1 and one cipher suite of its time.
fn client_hello_of_tls_1_1() -> Vec<u8> {
    let mut hello = vec![0x03, 0x02];
    hello.extend_from_slice(&[7; 32]);
    hello.push(0);
    hello.extend_from_slice(&[0x00, 0x02, 0xc0, 0x13]);
    hello.extend_from_slice(&[0x01, 0x00]);
    let length = u8::try_from(hello.len()).expect("small");
    let mut record = vec![22, 0x03, 0x01, 0x00, length + 4, 1, 0x00, 0x00, length];
    record.extend_from_slice(&hello);
    record
}
