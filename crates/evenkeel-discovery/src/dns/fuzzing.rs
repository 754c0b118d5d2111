//! The parsers of this module, for fuzz targets.

use std::net::{IpAddr, Ipv6Addr};

use evenkeel_core::endpoint::Endpoint;

use super::{answer, resolver::Service};

/// The endpoints of SRV records (priority, weight, port) with these addresses of their targets.
#[must_use]
pub fn dns_services(records: &[(u16, u16, u16, Vec<[u8; 16]>)]) -> Vec<Endpoint> {
    let ip = |bytes: &[u8; 16]| -> IpAddr {
        let v6 = Ipv6Addr::from(*bytes);
        v6.to_ipv4().map_or(v6.into(), IpAddr::V4)
    };
    let found = records.iter().map(|(priority, weight, port, addresses)| {
        let (priority, weight, port) = (*priority, *weight, *port);
        let service = Service { priority, weight, port, target: "target.".into() };
        (service, addresses.iter().map(ip).collect())
    });
    answer::services(found.collect())
}
