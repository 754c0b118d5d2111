//! Connections to servers of this test: plain, over a Unix socket, over TLS.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::{io::IoSlice, sync::Arc, time::Duration};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    error::cause,
};
use evenkeel_net::{ConnectTimeout, Dialer, Identity, Stream, Tls, TlsError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(name);
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn trusted(&self) -> Tls {
        Tls::with_ca(self.0.pem().as_bytes()).unwrap().crypto(crypto())
    }

    /// A server with a certificate for `name`, which asks for one of `clients`, and echoes.
    async fn serve(&self, name: &str, clients: Option<&Self>) -> Endpoint {
        let config = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto());
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.issue(name);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, endpoint) = listen().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(acceptor.accept(stream).await?);
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
        endpoint
    }
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Endpoint::new(address))
}

/// Writes two buffers with one call, and says how much of them was taken.
async fn write_two(stream: &mut Stream) -> usize {
    stream.write_vectored(&[IoSlice::new(b"one "), IoSlice::new(b"two")]).await.unwrap()
}

#[tokio::test]
async fn several_buffers_are_one_write_over_every_kind_of_connection() {
    let (listener, endpoint) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix_listener = tokio::net::UnixListener::bind(&path).unwrap();
    let authority = Authority::new();
    let secure = authority.serve("a.b", None).await;
    let dialer = Dialer::new().tls(authority.trusted());

    let tcp = dialer.connect(&endpoint).await.unwrap();
    let unix = dialer.connect(&Endpoint::new(Address::unix(&path))).await.unwrap();
    let tls = dialer.connect_tls(&secure, "a.b").await.unwrap();

    for mut stream in [tcp, unix, tls] {
        assert!(stream.is_write_vectored(), "{stream:?}");
        assert_eq!(write_two(&mut stream).await, "one two".len(), "{stream:?}");
    }
    drop((listener, unix_listener));
}

/// A listener whose backlog is full: more connections are neither accepted nor refused.
async fn full_backlog() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let connect = || tokio::net::TcpStream::connect(address);
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), connect()).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 64, "this system's backlog does not fill");
    }
    (listener, queued)
}

#[tokio::test]
async fn an_alternative_is_tried_in_time_however_short_the_timeout() {
    let (silent, _queued) = full_backlog().await;
    let (listener, _) = listen().await;
    let good = listener.local_addr().unwrap();
    // Shorter than the usual rest before the next address.
    let dialer = Dialer::new().connect_timeout(Duration::from_millis(200));
    let endpoint = Endpoint::new(silent.local_addr().unwrap());

    let connected = dialer.connect(&endpoint.clone().alternatives([good])).await;

    connected.expect("the alternative answers");
    assert!(dialer.connect(&endpoint).await.unwrap_err().is::<ConnectTimeout>());
}

#[tokio::test]
async fn an_alternative_stands_by_for_a_name_that_refuses_or_is_unknown() {
    let (listener, _) = listen().await;
    let good = listener.local_addr().unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for name in [format!("localhost:{}", refusing.port()), "[fe80::1%none]:80".to_owned()] {
        let endpoint: Endpoint = name.parse().unwrap();
        let dialer = Dialer::new().connect_timeout(Duration::from_secs(60));

        let stood_by = dialer.connect(&endpoint.clone().alternatives([good])).await;

        stood_by.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(dialer.connect(&endpoint).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn what_is_written_arrives_over_tls_and_the_protocol_is_agreed_on() {
    let authority = Authority::new();
    let endpoint = authority.serve("a.b", None).await;
    let dialer = Dialer::new().tls(authority.trusted());
    const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (protocols, agreed) in [(&[][..], None), (BOTH, Some(BOTH[0])), (&BOTH[1..], Some(BOTH[1]))]
    {
        let dialer = dialer.clone().alpn_protocols(protocols);

        let mut stream = dialer.connect_tls(&endpoint, "a.b").await.unwrap();

        assert_eq!(stream.alpn_protocol(), agreed);
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
    }
    assert_eq!(dialer.connect(&endpoint).await.unwrap().alpn_protocol(), None);
}

#[tokio::test]
async fn an_identity_is_shown_to_a_server_that_asks() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let endpoint = authority.serve("a.b", Some(&clients)).await;
    let echoes = async |tls: Tls| {
        let mut stream = Dialer::new().tls(tls).connect_tls(&endpoint, "a.b").await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_u8().await.map_err(evenkeel_core::BoxError::from)
    };

    assert!(echoes(authority.trusted().identity(clients.identity("me"))).await.is_ok());
    assert!(echoes(authority.trusted().identity(authority.identity("me"))).await.is_err());
    assert!(echoes(authority.trusted()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_hangs_ends_with_the_time_for_connecting() {
    let (listener, endpoint) = listen().await;
    let after = Duration::from_secs(7);
    let dialer = Dialer::new().connect_timeout(after).tls(Authority::new().trusted());

    let error = dialer.connect_tls(&endpoint, "a.b").await.unwrap_err();

    assert_eq!(cause::<ConnectTimeout>(error.as_ref()).unwrap().after, after);
    drop(listener);
}

/// The only test here that is about the cryptography of the process, which is one for all tests.
#[tokio::test]
async fn an_error_says_that_the_crypto_provider_is_missing_until_it_is_there() {
    let authority = Authority::new();
    let endpoint = authority.serve("a.b", None).await;
    let dialer = Dialer::new().tls(Tls::with_ca(authority.0.pem().as_bytes()).unwrap());

    let error = dialer.connect_tls(&endpoint, "a.b").await.unwrap_err();

    let error = cause::<TlsError>(error.as_ref()).unwrap().to_string();
    let advice = "no crypto provider: call CryptoProvider::install_default() first in main";
    assert!(error.starts_with(advice), "{error}");
    ring::default_provider().install_default().unwrap();
    dialer.connect_tls(&endpoint, "a.b").await.expect("what failed is tried again");
}

#[tokio::test]
async fn a_host_that_no_certificate_can_have_is_refused_with_advice() {
    let authority = Authority::new();
    let endpoint = authority.serve("a.b", None).await;
    let dialer = Dialer::new().tls(authority.trusted());

    let error = dialer.connect_tls(&endpoint, "a b").await.unwrap_err().to_string();

    assert!(error.ends_with("(set Tls::server_name)"), "{error}");
    let named = Dialer::new().tls(authority.trusted().server_name("a.b"));
    assert!(named.has_server_name());
    named.connect_tls(&endpoint, "a b").await.unwrap();
}
