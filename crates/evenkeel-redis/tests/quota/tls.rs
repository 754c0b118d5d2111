//! A quota on a Redis that is reached over TLS.

use std::sync::Arc;

use evenkeel_net::{Identity, Tls};
use evenkeel_redis::{Failing, RedisQuota};
use needs::needs;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{PATIENCE, only, server::Redis};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed if its issuer has the same name.
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn trusted(&self) -> Tls {
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        Tls::with_ca(self.0.pem().as_bytes()).unwrap().crypto(crypto)
    }
}

#[needs("redis-server")]
#[tokio::test]
async fn a_server_of_ones_own_authority_is_trusted_and_shown_an_identity() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("127.0.0.1");
    let redis = Redis::start_secure(&certificate, &key, &authority.0.pem()).unwrap();
    let (certificate, key) = authority.issue("client.internal");
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let quota = |tls: Tls| {
        let quota = RedisQuota::open(&redis.secure_url(), "tls", only(10)).unwrap();
        quota.timeout(PATIENCE).failing(Failing::Refuse).tls(tls)
    };

    quota(authority.trusted().identity(identity.clone())).spend(b"a").await.unwrap();

    quota(authority.trusted()).spend(b"a").await.unwrap_err();
    quota(Authority::new().trusted().identity(identity)).spend(b"a").await.unwrap_err();
}

#[test]
fn a_server_that_is_not_verified_is_refused() {
    let error = RedisQuota::open("rediss://127.0.0.1:6379/#insecure", "tls", only(1)).unwrap_err();
    assert!(error.to_string().contains("RedisQuota::tls"), "{error}");
}
