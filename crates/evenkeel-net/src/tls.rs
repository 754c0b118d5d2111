//! TLS by rustls: the other side is always verified.

use std::sync::{Arc, OnceLock};

use evenkeel_core::BoxError;
use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    client::danger::ServerCertVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::stream::Stream;

/// How the other side is verified, and how this side proves its identity.
///
/// Verification cannot be turned off. If you must, pass your own [`ClientConfig`].
///
/// The cryptography is that of the process (`CryptoProvider::install_default`), or [`Tls::crypto`].
/// Without either, connecting fails with an error that says so.
///
/// ```
/// use evenkeel::net::{Identity, Tls, TlsError};
///
/// // The roots of the system, and the server name that the request names.
/// let public = Tls::system();
///
/// // Your own certificate authority, one name for all endpoints, and a certificate for this side.
/// fn inside(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
///     let identity = Identity::from_pem(chain, key)?;
///     Ok(Tls::with_ca(ca)?.server_name("orders.internal").identity(identity))
/// }
/// # assert!(inside(b"", b"", b"").is_err());
/// # drop(public);
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    trust: Trust,
    identity: Option<Identity>,
    crypto: Option<Arc<CryptoProvider>>,
    server_name: Option<ServerName<'static>>,
}

#[derive(Clone, Debug)]
enum Trust {
    System,
    Authorities(Arc<RootCertStore>),
    Config(Arc<ClientConfig>),
}

/// What this side shows to prove who it is: a chain of certificates, and the key of the first.
#[derive(Clone, Debug)]
pub struct Identity {
    chain: Arc<[CertificateDer<'static>]>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// TLS material that cannot be used: why, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct TlsError {
    /// What is wrong with it.
    pub reason: String,
}

impl TlsError {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Identity {
    /// The certificates in `chain`, this side's own first, and its private `key`, both in PEM.
    ///
    /// # Errors
    /// If either cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            TlsError::new(format!(
                "unreadable private key: {error} (give it in PEM, not encrypted)"
            ))
        })?;
        Ok(Self { chain: certificates(chain)?.into(), key: Arc::new(key) })
    }
}

impl Tls {
    /// Trusts the authorities that the operating system trusts.
    #[must_use]
    pub fn system() -> Self {
        Self::trusting(Trust::System)
    }

    /// Trusts the certificate authorities in `pem`, and no others.
    ///
    /// # Errors
    /// If it has no certificate, or one that cannot be read.
    pub fn with_ca(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|error| {
                TlsError::new(format!("unusable certificate authority: {error}"))
            })?;
        }
        Ok(Self::trusting(Trust::Authorities(Arc::new(roots))))
    }

    /// Uses a configuration as it is, including how it verifies.
    ///
    /// Its ALPN protocols are kept if there are any, else set to those that the connector speaks.
    #[must_use]
    pub fn from_config(config: Arc<ClientConfig>) -> Self {
        Self::trusting(Trust::Config(config))
    }

    /// Sets what this side shows to a server that asks for a certificate. Default: nothing.
    ///
    /// It has no effect on [`Tls::from_config`], which has its own.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the name that every endpoint must have a certificate for. Default: the request's host.
    ///
    /// # Panics
    /// If `name` is neither a host name nor an IP address.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        let name =
            ServerName::try_from(name).expect("a server name is a host name or an IP address");
        self.server_name = Some(name.to_owned());
        self
    }

    /// Sets the cryptography. Default: that of the process.
    #[must_use]
    pub fn crypto(mut self, crypto: Arc<CryptoProvider>) -> Self {
        self.crypto = Some(crypto);
        self
    }

    fn trusting(trust: Trust) -> Self {
        Self { trust, identity: None, crypto: None, server_name: None }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let crypto = || self.crypto.clone().map_or_else(process_crypto, Ok);
        match &self.trust {
            Trust::Config(config) => Ok(config.clone()),
            Trust::System => {
                let crypto = crypto()?;
                let verifier = rustls_platform_verifier::Verifier::new(crypto.clone());
                let verifier = verifier.map_err(|error| {
                    TlsError::new(format!(
                        "no authorities of the system: {error} (install ca-certificates, or use \
                         Tls::with_ca)"
                    ))
                })?;
                self.verified_by(Arc::new(verifier), crypto)
            }
            Trust::Authorities(roots) => {
                let crypto = crypto()?;
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots.clone(), crypto.clone());
                let verifier = verifier.build().map_err(|error| {
                    TlsError::new(format!("unusable certificate authorities: {error}"))
                })?;
                self.verified_by(verifier, crypto)
            }
        }
    }

    fn verified_by(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        crypto: Arc<CryptoProvider>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(format!("unusable crypto provider: {error}")))?
            // rustls calls every custom verifier dangerous; both of ours verify.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(Identity { chain, key }) => config
                .with_client_auth_cert(chain.to_vec(), key.clone_key())
                .map_err(|error| TlsError::new(format!("unusable identity: {error}")))?,
        };
        Ok(Arc::new(config))
    }
}

/// Whether both are clones of one. What is made again may come from newer files, and differs.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let is_trust_same = match (&self.trust, &other.trust) {
            (Trust::System, Trust::System) => true,
            (Trust::Authorities(a), Trust::Authorities(b)) => Arc::ptr_eq(a, b),
            (Trust::Config(a), Trust::Config(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let is_crypto_same = match (&self.crypto, &other.crypto) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        is_trust_same
            && is_crypto_same
            && self.identity == other.identity
            && self.server_name == other.server_name
    }
}

/// Whether both are clones of one.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }
}

/// The cryptography of the process.
///
/// # Errors
/// If the program has installed none.
pub fn process_crypto() -> Result<Arc<CryptoProvider>, TlsError> {
    CryptoProvider::get_default().cloned().ok_or_else(|| {
        TlsError::new("no crypto provider: call CryptoProvider::install_default() first in main")
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::new(format!("unreadable certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(TlsError::new("no certificate in the PEM text"));
    }
    Ok(certificates)
}

/// Makes TLS connections. Its configuration is built once, with the first connection that finds what it
/// needs.
#[derive(Debug)]
pub(crate) struct Handshake {
    tls: Tls,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Handshake {
    pub(crate) fn new(tls: Tls) -> Self {
        Self { tls, config: OnceLock::new() }
    }

    pub(crate) fn has_server_name(&self) -> bool {
        self.tls.server_name.is_some()
    }

    /// Secures `stream`, whose other side has to prove that it is `host`.
    pub(crate) async fn shake_hands(
        &self,
        stream: Stream,
        host: &str,
        protocols: &[&[u8]],
    ) -> Result<Stream, BoxError> {
        let config = match self.config.get() {
            Some(config) => config.clone(),
            None => {
                let config = self.tls.config()?;
                self.config.get_or_init(|| config).clone()
            }
        };
        let protocols = match config.alpn_protocols.as_slice() {
            [] => protocols.iter().map(|protocol| protocol.to_vec()).collect(),
            chosen => chosen.to_vec(),
        };
        let name = match &self.tls.server_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let connector = TlsConnector::from(config);
        Ok(connector.with_alpn(protocols).connect(name, stream).await?.into())
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // A URI has an IPv6 address in brackets, and maybe with a zone; a certificate does not.
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let bare = bare.map_or(host, |address| address.split('%').next().unwrap_or_default());
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        TlsError::new(format!(
            "`{host}` is no name that a certificate can have (set Tls::server_name)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_certificate_is_refused_with_a_reason() {
        assert_eq!(Tls::with_ca(b"").unwrap_err().reason, "no certificate in the PEM text");
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Tls::with_ca(broken).unwrap_err().reason.starts_with("unusable"));
        assert!(Identity::from_pem(b"", b"").is_err());
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        assert!(matches!(server_name("[::1]").unwrap(), ServerName::IpAddress(_)));
        assert!(matches!(server_name("[fe80::1%25eth0]").unwrap(), ServerName::IpAddress(_)));
        assert!(matches!(server_name("10.0.0.1").unwrap(), ServerName::IpAddress(_)));
        assert!(matches!(server_name("a.b").unwrap(), ServerName::DnsName(_)));
        assert!(server_name("").is_err());
    }
}
