//! A TLS server in front of a plain one, with a certificate that can be changed.
#![allow(dead_code, reason = "no test needs all of it")]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a chain and a key, in PEM.
    pub(crate) fn certify(&self, name: &str) -> (String, String) {
        self.certify_until(name, 4_000)
    }

    /// Issues one that is valid until the beginning of this year.
    pub(crate) fn certify_until(&self, name: &str, year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

pub(crate) struct Front {
    pub(crate) url: String,
    certificate: watch::Sender<Arc<ServerConfig>>,
}

impl Front {
    /// A front for `url`, which is `http://` and an address, with this chain and key.
    pub(crate) async fn before(url: &str, certificate: (String, String)) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (certificate, mut changed) = watch::channel(config(&certificate));
        tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(changed.borrow_and_update().clone());
                let (target, mut changed) = (target.clone(), changed.clone());
                tokio::spawn(async move {
                    let Ok(mut inside) = acceptor.accept(inside).await else { return };
                    let Ok(mut outside) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inside, &mut outside) => {}
                        // The next connection gets the new one.
                        _ = changed.changed() => {}
                    }
                });
            }
        });
        Self { url, certificate }
    }

    /// Uses another certificate from now on, and cuts the connections that were made with the last.
    pub(crate) fn show(&self, certificate: &(String, String)) {
        self.certificate.send_replace(config(certificate));
    }
}

fn config((chain, key): &(String, String)) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
