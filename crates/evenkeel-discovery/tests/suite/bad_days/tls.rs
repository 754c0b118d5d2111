//! Certificates that expire, and are replaced.

use evenkeel_core::discover::Discovery;
use evenkeel_discovery::tls::Tls;
use needs::needs;

use crate::bad_days::{
    harness::{Harness, Instance},
    tls_front::{Authority, Front},
    watching::Watching,
};

/// Follows a registry with a certificate that expires meanwhile.
async fn certificate_that_runs_out<H: Harness, D: Discovery>(
    mut harness: H,
    discovery: impl Fn(&str, Tls) -> D,
) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new();
    let front = Front::before(&harness.url(), authority.certify("127.0.0.1")).await;
    let trusted = Tls::with_ca(authority.pem().as_bytes()).unwrap();
    harness.set(&Instance::ports([1, 2])).await;
    let mut watching = Watching::new(&discovery(&front.url, trusted));
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;

    front.show(&authority.certify_until("127.0.0.1", 2_020));
    let said = |error: &dyn std::fmt::Debug| format!("{error:?}").to_lowercase();
    while !said(watching.until_failure().await).contains("expired") {}
    assert_eq!(watching.addresses(), ["10.0.0.1:1", "10.0.0.1:2"]);

    front.show(&authority.certify("127.0.0.1"));
    harness.set(&Instance::ports([1, 2, 3])).await;
    watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
    assert_eq!(watching.least, 2);
}

#[cfg(feature = "consul")]
#[needs("consul")]
#[tokio::test]
async fn a_certificate_of_an_agent_that_runs_out_empties_nothing() {
    let harness = crate::bad_days::consul::OneAgent::<0>::start().await.unwrap();
    certificate_that_runs_out(harness, |url, tls| {
        let agents = evenkeel_discovery::consul::Agents::at([url]).unwrap().tls(tls);
        crate::bad_days::consul::follow_at(agents)
    })
    .await;
}

#[cfg(feature = "etcd")]
#[needs("etcd-3.5")]
#[tokio::test]
async fn a_certificate_of_a_member_that_runs_out_empties_nothing() {
    let harness = crate::bad_days::etcd::OneMember::<1>::start().await.unwrap();
    certificate_that_runs_out(harness, |url, tls| {
        let cluster = evenkeel_discovery::etcd::Cluster::at([url]).unwrap().tls(tls);
        crate::bad_days::etcd::follow_at(cluster)
    })
    .await;
}
