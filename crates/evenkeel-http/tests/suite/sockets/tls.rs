//! TLS: which servers are trusted, and which are not.

use std::sync::Arc;

use evenkeel_core::{
    BoxError, connect::Connect, endpoint::Address, error::cause, health::check::Probe,
};
use evenkeel_http::{ConnectError, HttpConnector, HttpProbe, Identity, Tls, TlsProbe};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::sockets::support::{
    Payload, echo, get, listen, node, serve, serve_stream, text, within,
};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn trusting(&self) -> Tls {
        Tls::with_ca(self.pem().as_bytes()).unwrap().crypto(crypto())
    }
}

/// TLS that trusts an authority with which no server has a certificate.
pub(crate) fn trusting_one_authority() -> Tls {
    Authority::new().trusting()
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A server with a certificate for `name`, and the server name that it is asked for in its answers.
async fn serve_tls(
    authority: &Authority,
    name: &str,
    protocols: &[&str],
    clients: Option<&Authority>,
) -> Address {
    let config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.0.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto()).build();
            config.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let (certificate, key) = authority.issue(name);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    let answer = move |request| {
                        let name = name.clone();
                        async move {
                            let mut response = echo(request).await;
                            let name = name.unwrap_or_else(|| "-".to_owned());
                            response.headers_mut().insert("sni", name.parse().unwrap());
                            response
                        }
                    };
                    serve_stream(stream, answer).await;
                }
            });
        }
    });
    address
}

/// The answer, after the server name that the server was asked for.
async fn ask(
    connector: &HttpConnector<Payload>,
    address: Address,
    uri: &str,
) -> Result<String, BoxError> {
    let (node, _) = node(address);
    let response = within(connector.connect(&node).oneshot(get(uri))).await?;
    let name = response.headers()["sni"].to_str()?.to_owned();
    Ok(format!("{name} {}", text(response).await))
}

fn certificate_error(error: &BoxError) -> CertificateError {
    assert!(cause::<ConnectError>(error.as_ref()).is_some(), "{error:?}");
    let error = cause::<std::io::Error>(error.as_ref()).unwrap();
    match error.get_ref().unwrap().downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_a_configured_authority_is_trusted_and_the_protocol_negotiated() {
    let authority = Authority::new();
    for (protocols, connector, version) in [
        (&["h2", "http/1.1"][..], HttpConnector::new(), "HTTP/2.0"),
        (&["http/1.1"], HttpConnector::new(), "HTTP/1.1"),
        (&[], HttpConnector::new(), "HTTP/1.1"),
        (&["h2", "http/1.1"], HttpConnector::new().http1(), "HTTP/1.1"),
        (&["h2", "http/1.1"], HttpConnector::new().http2(), "HTTP/2.0"),
    ] {
        let address = serve_tls(&authority, "a.b", protocols, None).await;
        let connector = connector.tls(authority.trusting());

        let answer = ask(&connector, address, "https://a.b/x").await.unwrap();

        assert_eq!(answer, format!("a.b {version} a.b /x "));
    }
}

#[tokio::test]
async fn the_server_name_is_that_of_the_request_and_every_connection_is_tls() {
    let authority = Authority::new();
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let address = serve_tls(&authority, "a.b", &["h2", "http/1.1"], None).await;
        let connector = connector.tls(authority.trusting()).authority("a.b");
        // Neither a path alone nor `http` makes it plain text.
        for uri in ["/x", "http://a.b/x"] {
            let answer = ask(&connector, address.clone(), uri).await.unwrap();
            assert_eq!(answer, "a.b HTTP/2.0 a.b /x ");
        }
    }
}

#[tokio::test]
async fn a_configured_server_name_does_not_change_the_authority() {
    let authority = Authority::new();
    let address = serve_tls(&authority, "inside.local", &["h2"], None).await;
    let tls = authority.trusting().server_name("inside.local");

    let answer = ask(&HttpConnector::new().http2().tls(tls), address, "https://a.b/x").await;

    assert_eq!(answer.unwrap(), "inside.local HTTP/2.0 a.b /x ");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_connect_error() {
    let authority = Authority::new();
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let address = serve_tls(&authority, "a.b", &["h2"], None).await;
        let connector = connector.tls(authority.trusting());

        let error = ask(&connector, address, "https://c.d/").await.unwrap_err();

        let error = certificate_error(&error);
        assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_connection_for_one_name_is_not_used_for_another() {
    let authority = Authority::new();
    let address = serve_tls(&authority, "a.b", &["h2"], None).await;
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (node, _) = node(address.clone());
        let service = connector.tls(authority.trusting()).connect(&node);

        assert!(within(service.clone().oneshot(get("https://a.b/"))).await.is_ok());
        let error = within(service.clone().oneshot(get("https://c.d/"))).await.unwrap_err();

        certificate_error(&error);
        assert!(within(service.oneshot(get("https://a.b/"))).await.is_ok());
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_a_connect_error() {
    let address = serve_tls(&Authority::new(), "a.b", &[], None).await;
    let connector = HttpConnector::new().tls(Authority::new().trusting());

    let error = ask(&connector, address, "https://a.b/").await.unwrap_err();

    assert!(matches!(
        certificate_error(&error),
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    ));
}

#[tokio::test]
async fn the_roots_of_the_system_do_not_trust_an_unknown_authority() {
    let address = serve_tls(&Authority::new(), "a.b", &[], None).await;
    let connector = HttpConnector::new().tls(Tls::system().crypto(crypto()));

    let error = ask(&connector, address, "https://a.b/").await.unwrap_err();

    assert!(cause::<ConnectError>(error.as_ref()).is_some());
}

#[tokio::test]
async fn without_a_crypto_provider_the_error_says_what_to_do() {
    let address = serve(echo).await;

    let error = ask(&HttpConnector::new(), address, "https://a.b/").await.unwrap_err();

    let error = cause::<ConnectError>(error.as_ref()).unwrap();
    assert!(error.source.to_string().contains("CryptoProvider::install_default()"), "{error:?}");
}

#[tokio::test]
async fn plain_text_where_tls_is_expected_is_a_connect_error() {
    let connector = HttpConnector::new().tls(Authority::new().trusting());

    let error = ask(&connector, serve(echo).await, "http://a.b/").await.unwrap_err();

    assert!(cause::<ConnectError>(error.as_ref()).is_some());
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let address = serve_tls(&authority, "a.b", &[], Some(&clients)).await;
    let (certificate, key) = clients.issue("me");
    let identity =
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();

    let connector = HttpConnector::new().tls(authority.trusting().identity(identity));
    assert!(ask(&connector, address.clone(), "https://a.b/").await.is_ok());

    let connector = HttpConnector::new().tls(authority.trusting());
    assert!(ask(&connector, address, "https://a.b/").await.is_err());
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    let (listener, address) = listen().await;
    let connector = HttpConnector::new()
        .tls(Authority::new().trusting())
        .connect_timeout(std::time::Duration::from_millis(100));

    let error = ask(&connector, address, "https://a.b/").await.unwrap_err();

    assert!(cause::<ConnectError>(error.as_ref()).unwrap().is_timeout());
    drop(listener);
}

#[tokio::test]
async fn a_probe_shakes_hands_and_believes_no_wrong_certificate() {
    let authority = Authority::new();
    let good = |name| TlsProbe::new(authority.trusting().server_name(name));
    let (node, _) = node(serve_tls(&authority, "a.b", &["h2"], None).await);

    within(good("a.b").probe(&node)).await.unwrap();

    assert!(within(good("c.d").probe(&node)).await.is_err());
    let distrusting = Authority::new().trusting().server_name("a.b");
    assert!(within(TlsProbe::new(distrusting).probe(&node)).await.is_err());
    let (plain, _) = crate::sockets::support::node(serve(echo).await);
    assert!(within(good("a.b").probe(&plain)).await.is_err());
}

#[tokio::test]
async fn a_probe_speaks_http_over_the_tls_of_a_connector() {
    let authority = Authority::new();
    let connector = HttpConnector::<Payload>::new().tls(authority.trusting()).authority("a.b");
    let (node, unreachable) = node(serve_tls(&authority, "a.b", &["h2", "http/1.1"], None).await);

    let probe = HttpProbe::new("/").connector(&connector).expect_body("HTTP/2.0 a.b /");
    within(probe.probe(&node)).await.unwrap();
    let probe = HttpProbe::new("/").connector(&connector).host("c.d");
    assert!(within(probe.probe(&node)).await.is_err());

    assert_eq!(unreachable.times(), 0, "discovery is not asked again for a probe");
}
