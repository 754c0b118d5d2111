//! DNS from PowerDNS and from CoreDNS, the latter over a file, over etcd and over Kubernetes.
//!
//! BIND and a simulated server are in `dns.rs`.

mod coredns;
#[cfg(feature = "kubernetes")]
mod headless;
mod powerdns;

#[cfg(feature = "kubernetes")]
use crate::kubernetes::real;
use crate::support::watching;

use std::{net::SocketAddr, time::Duration};

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::Dns;
use needs::needs;

use self::{coredns::CoreDns, powerdns::PowerDns, watching::Watching};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// With times short enough that a test need not wait for seconds.
fn quick(dns: Dns, server: SocketAddr) -> Dns {
    dns.nameserver(server)
        .ttl_bounds(ms(20), ms(200))
        .backoff(Backoff::new(ms(20), ms(100)))
        .timeout(ms(2_000))
}

fn host(name: &str, server: SocketAddr) -> Dns {
    quick(Dns::new(name).unwrap(), server)
}

fn service(name: &str, server: SocketAddr) -> Dns {
    quick(Dns::srv(name).unwrap(), server)
}

#[needs("pdns_server")]
#[tokio::test]
async fn powerdns_is_followed_through_changes_denials_and_its_end() {
    let mut powerdns = PowerDns::start().await.unwrap();
    powerdns.replace("db", "A", &["10.0.0.1", "10.0.0.2"]).await;
    powerdns.replace("db", "AAAA", &["2001:db8::1"]).await;
    powerdns.replace("_grpc._tcp", "SRV", &["0 3 8080 db.example.test."]).await;
    let mut watching = Watching::new(&host("db.example.test.:80", powerdns.address));
    watching.until_addresses(&["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]).await;
    let mut services = Watching::new(&service("_grpc._tcp.example.test.", powerdns.address));
    services.until_addresses(&["10.0.0.1:8080", "10.0.0.2:8080", "[2001:db8::1]:8080"]).await;

    powerdns.replace("db", "AAAA", &[]).await;
    powerdns.replace("db", "A", &["10.0.0.2", "10.0.0.3"]).await;
    watching.until_addresses(&["10.0.0.2:80", "10.0.0.3:80"]).await;
    services.until_addresses(&["10.0.0.2:8080", "10.0.0.3:8080"]).await;

    powerdns.replace("db", "A", &[]).await;
    watching.until(std::collections::BTreeMap::is_empty).await;
    powerdns.replace("db", "A", &["10.0.0.9"]).await;
    watching.until_addresses(&["10.0.0.9:80"]).await;

    powerdns.stop();
    watching.failures.clear();
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 1"), "{failed}");
}

#[needs("pdns_server")]
#[tokio::test]
async fn powerdns_is_believed_over_tcp_where_udp_is_too_small() {
    let powerdns = PowerDns::start().await.unwrap();
    let many: Vec<_> = (1..=200).map(|n| format!("10.1.0.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    powerdns.replace("many", "A", &many).await;
    let mut watching = Watching::new(&host("many.example.test.:80", powerdns.address));
    watching.until(|set| set.len() == 200).await;
}

#[needs("coredns")]
#[tokio::test]
async fn coredns_serves_a_file_that_changes() {
    let coredns = CoreDns::from_file(&["10.0.0.1", "10.0.0.2"]).unwrap();
    let mut watching = Watching::new(&host("db.example.test.:80", coredns.address));
    watching.until_addresses(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    let mut services = Watching::new(&service("_grpc._tcp.example.test.", coredns.address));
    services.until_weights(&[("10.0.0.1:8080", 448), ("10.0.0.2:8080", 448)]).await;

    coredns.zone(2, &["10.0.0.2", "10.0.0.3"]);
    watching.until_addresses(&["10.0.0.2:80", "10.0.0.3:80"]).await;
    coredns.zone(3, &[]);
    watching.until(std::collections::BTreeMap::is_empty).await;
}

#[needs("coredns", "etcd-3.5")]
#[tokio::test]
async fn coredns_serves_what_services_wrote_into_etcd() {
    let coredns = CoreDns::from_etcd().await.unwrap();
    coredns.put("web/a", r#"{"host":"10.0.0.1","port":8080,"priority":1,"weight":50,"ttl":1}"#);
    coredns.put("web/b", r#"{"host":"10.0.0.2","port":8081,"priority":1,"weight":50,"ttl":1}"#);
    let mut hosts = Watching::new(&host("web.example.test.:80", coredns.address));
    hosts.until_addresses(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    let mut services = Watching::new(&service("web.example.test.", coredns.address));
    services.until_addresses(&["10.0.0.1:8080", "10.0.0.2:8081"]).await;
    assert_eq!(services.find("10.0.0.1:8080").unwrap().priority, 1);

    coredns.delete("web/a");
    hosts.until_addresses(&["10.0.0.2:80"]).await;
    services.until_addresses(&["10.0.0.2:8081"]).await;
}
