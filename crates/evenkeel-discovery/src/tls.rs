//! TLS to registries, by rustls, always verified.

use std::sync::Arc;

use evenkeel_core::BoxError;
use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// How a registry is verified, and how this side authenticates itself.
///
/// The cryptography is the process's `CryptoProvider` (`CryptoProvider::install_default`). Without
/// one, connecting fails with an error that says so. If you need more, bring your own
/// [`ClientConfig`].
///
/// ```
/// use evenkeel_discovery::tls::{Tls, TlsError};
///
/// fn inside(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
///     Tls::with_ca(ca)?.client_certificate(chain, key)
/// }
/// assert!(inside(b"no certificate", b"", b"").is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    trust: Trust,
    identity: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
}

#[derive(Clone, Debug)]
enum Trust {
    System,
    Authorities(Arc<RootCertStore>),
    Config(Arc<ClientConfig>),
}

/// Whether both are the same object or clones of it. A configuration that is made again may come
/// from newer files.
#[cfg(feature = "etcd")]
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let is_trust_same = match (&self.trust, &other.trust) {
            (Trust::System, Trust::System) => true,
            (Trust::Authorities(a), Trust::Authorities(b)) => Arc::ptr_eq(a, b),
            (Trust::Config(a), Trust::Config(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        is_trust_same
            && match (&self.identity, &other.identity) {
                (None, None) => true,
                (Some((_, a)), Some((_, b))) => Arc::ptr_eq(a, b),
                _ => false,
            }
    }
}

/// TLS material that cannot be used, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct TlsError {
    /// What is wrong with it.
    pub reason: String,
}

impl Tls {
    /// Trusts the certificate authorities of the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self { trust: Trust::System, identity: None }
    }

    /// Trusts the certificate authorities in `pem`, and no others.
    ///
    /// # Errors
    /// If there is no certificate in it, or one that cannot be read.
    pub fn with_ca(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|error| TlsError {
                reason: format!("unusable certificate authority: {error}"),
            })?;
        }
        Ok(Self { trust: Trust::Authorities(Arc::new(roots)), identity: None })
    }

    /// Uses a configuration as it is, with its own rules of verification.
    #[must_use]
    pub fn from_config(config: Arc<ClientConfig>) -> Self {
        Self { trust: Trust::Config(config), identity: None }
    }

    /// Authenticates this side with a certificate chain and the key of its first certificate, in
    /// PEM.
    ///
    /// It has no effect on [`Tls::from_config`], which brings its own.
    ///
    /// # Errors
    /// If either cannot be read.
    pub fn client_certificate(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError { reason: format!("unreadable private key: {error}") })?;
        self.identity = Some((certificates(chain)?, Arc::new(key)));
        Ok(self)
    }

    /// The configuration for connections that speak one of `protocols`.
    #[cfg_attr(
        not(any(feature = "consul", feature = "etcd", feature = "kubernetes")),
        allow(dead_code)
    )]
    pub(crate) fn config(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, BoxError> {
        let mut config = match &self.trust {
            Trust::Config(config) => (**config).clone(),
            Trust::System => {
                let crypto = process_crypto()?;
                let verifier = rustls_platform_verifier::Verifier::new(crypto.clone())?;
                self.verified_by(Arc::new(verifier), crypto)?
            }
            Trust::Authorities(roots) => {
                let crypto = process_crypto()?;
                let roots = roots.clone();
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots, crypto.clone()).build()?;
                self.verified_by(verifier, crypto)?
            }
        };
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        }
        Ok(Arc::new(config))
    }

    fn verified_by(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        crypto: Arc<CryptoProvider>,
    ) -> Result<ClientConfig, rustls::Error> {
        let config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match &self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key()),
            None => Ok(config.with_no_client_auth()),
        }
    }
}

pub(crate) fn process_crypto() -> Result<Arc<CryptoProvider>, TlsError> {
    CryptoProvider::get_default().cloned().ok_or_else(|| TlsError {
        reason: "no cryptography: call CryptoProvider::install_default of rustls in main".into(),
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError { reason: format!("unreadable certificate: {error}") })?;
    if certificates.is_empty() {
        return Err(TlsError { reason: "no certificate in the PEM text".into() });
    }
    Ok(certificates)
}
