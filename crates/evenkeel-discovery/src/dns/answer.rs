//! Makes endpoints of addresses and SRV records.

use std::{collections::HashSet, net::IpAddr, net::SocketAddr};

use evenkeel_core::endpoint::Endpoint;

use super::resolver::Service;

/// The factor by which all weights grow when a target shares its own among several addresses.
const SHARES: u32 = 64;

/// An endpoint for each address; the same addresses in any order give the same result.
///
/// DNS does not say which addresses belong to one host, so each is an endpoint, as in gRPC (A61).
/// But a server may listen on one family alone. gRPC connects before it picks and so finds that
/// out. Here each endpoint has an address of the other family as an alternative when connecting.
/// family stands by for the moment of connecting.
pub(super) fn host(addresses: Vec<IpAddr>, port: u16) -> Vec<Endpoint> {
    let addresses = interleave(addresses);
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|ip| ip.is_ipv6());
    let mut turns = [0, 0];
    let endpoint = |ip: IpAddr| {
        let others = if ip.is_ipv6() { &v4 } else { &v6 };
        let turn = &mut turns[usize::from(ip.is_ipv6())];
        let other = others.get(*turn % others.len().max(1)).copied();
        *turn += 1;
        let at_port = |ip| SocketAddr::new(ip, port);
        Endpoint::from(at_port(ip)).alternatives(other.map(at_port))
    };
    addresses.into_iter().map(endpoint).collect()
}

/// IPv6 and IPv4 in turns, as RFC 8305 (section 4) orders them, so that the first few contain both
/// families.
pub(super) fn interleave(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    let (mut v6, mut v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    v6.reverse();
    v4.reverse();
    let mut mixed = Vec::with_capacity(v6.len() + v4.len());
    while !(v6.is_empty() && v4.is_empty()) {
        mixed.extend(v6.pop());
        mixed.extend(v4.pop());
    }
    mixed
}

/// The endpoints of services with these addresses of their targets.
///
/// Of two with one address, the one with the better priority counts.
pub(super) fn services(mut found: Vec<(Service, Vec<IpAddr>)>) -> Vec<Endpoint> {
    found.sort_unstable();
    let is_shared = found.iter().any(|(_, addresses)| 1 < addresses.len());
    let scale = if is_shared { SHARES } else { 1 };
    let mut seen = HashSet::new();
    let mut endpoints = vec![];
    for (service, addresses) in found {
        let of_target = host(addresses, service.port);
        let share = u32::try_from(of_target.len()).unwrap_or(u32::MAX).max(1);
        // Never 0, which would drain it. RFC 2782 gives weight 0 a small share: its algorithm picks
        // it in 1 of (sum of weights + 1) cases, which is what weight 1 does.
        let weight = (u32::from(service.weight).max(1) * scale / share).max(1);
        for endpoint in of_target {
            if seen.insert(endpoint.address.clone()) {
                endpoints.push(endpoint.weight(weight).priority(service.priority.into()));
            }
        }
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 80, target: target.into() }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_order_of_the_answer_does_not_matter() {
        let expected = ips(&["::1", "10.0.0.1", "::2", "10.0.0.2", "10.0.0.3"]);

        assert_eq!(interleave(ips(&["10.0.0.3", "::2", "10.0.0.1", "::1", "10.0.0.2"])), expected);
        assert_eq!(interleave(ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1", "::2"])), expected);
        assert_eq!(interleave(ips(&["::1", "::1"])), ips(&["::1"]));
    }

    #[test]
    fn an_address_of_the_other_family_stands_by_for_each() {
        let told = |texts: &[&str]| -> Vec<_> {
            let standing_by = |endpoint: Endpoint| {
                let others: Vec<_> =
                    endpoint.alternatives.iter().map(|other| other.ip().to_string()).collect();
                (endpoint.address.to_string(), others.concat())
            };
            host(ips(texts), 80).into_iter().map(standing_by).collect()
        };
        let expected = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };

        assert_eq!(
            told(&["10.0.0.1", "10.0.0.2"]),
            expected(&[("10.0.0.1:80", ""), ("10.0.0.2:80", "")])
        );
        let both = told(&["::1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "::2"]);
        let pairs = [
            ("[::1]:80", "10.0.0.1"),
            ("10.0.0.1:80", "::1"),
            ("[::2]:80", "10.0.0.2"),
            ("10.0.0.2:80", "::2"),
            ("10.0.0.3:80", "::1"),
        ];
        assert_eq!(both, expected(&pairs));
    }

    #[test]
    fn tiers_and_weights_are_kept_and_weight_zero_is_a_small_share() {
        let found = vec![
            (service(1, 5, "c."), ips(&["10.0.0.3"])),
            (service(0, 0, "b."), ips(&["10.0.0.2"])),
            (service(0, 60_000, "a."), ips(&["10.0.0.1"])),
        ];

        let told: Vec<_> = services(found).into_iter().map(|e| (e.priority, e.weight)).collect();

        assert_eq!(told, [(0, 1), (0, 60_000), (1, 5)]);
    }

    #[test]
    fn a_target_of_two_addresses_shares_its_weight_among_them() {
        let found = vec![
            (service(0, 10, "a."), ips(&["10.0.0.1", "::1"])),
            (service(0, 10, "b."), ips(&["10.0.0.2"])),
        ];

        let told = services(found);

        let sum = |v6_or_one: &[usize]| v6_or_one.iter().map(|n| told[*n].weight).sum::<u32>();
        assert_eq!(sum(&[0, 1]), sum(&[2]));
    }

    #[test]
    fn an_address_of_two_targets_is_one_endpoint_of_the_better_tier() {
        let found = vec![
            (service(2, 1, "old."), ips(&["10.0.0.1"])),
            (service(1, 7, "new."), ips(&["10.0.0.1"])),
        ];

        assert_eq!(
            services(found),
            ["10.0.0.1:80".parse::<Endpoint>().unwrap().weight(7).priority(1)]
        );
    }
}
