//! Makes endpoints of a slice: which port, which address family, in which state, and for which
//! zone.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use evenkeel_core::endpoint::{Address, Endpoint};

use super::slice::{Conditions, Item, Name, Port, Slice};
use crate::journal::Journal;

const POD: &str = "kubernetes.pod";
const PORT: &str = "kubernetes.port";
const APP_PROTOCOL: &str = "kubernetes.app_protocol";

/// Which port of the endpoints is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortChoice {
    /// The only port of the service.
    Only,
    Name(Arc<str>),
    Number(u16),
}

/// Which addresses are used of pods that have both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// IPv4 if a pod has it, else IPv6. A pod counts once.
    #[default]
    PreferIpv4,
    /// IPv6 if a pod has it, else IPv4. A pod counts once.
    PreferIpv6,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both: IPv4 if a pod has it, with its IPv6 address as an
    /// [alternative](evenkeel_core::endpoint::Endpoint::alternatives), else IPv6. A pod counts
    /// once. If an endpoint is not known to be a pod, each address is an endpoint of its own.
    Both,
}

/// How slices are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) port: PortChoice,
    pub(super) family: Family,
    /// The zone of this process, if hints are to be followed.
    pub(super) zone: Option<Arc<str>>,
    pub(super) node: Option<Arc<str>>,
}

/// What a slice says about one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) endpoint: Endpoint,
    pub(super) state: State,
    /// The pod, so that it counts once even if several slices and addresses name it; empty if
    /// unknown.
    pub(super) uid: Arc<str>,
    pub(super) is_ipv6: bool,
    pub(super) zones: Hinted,
    pub(super) nodes: Hinted,
}

/// Where the clients are for which an endpoint is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hinted {
    Nothing,
    Here,
    Elsewhere,
}

/// Which requests an endpoint may get; the best state is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Gone,
    /// It terminates, and serves the requests that it has.
    Draining,
    Active,
}

impl Conditions {
    /// A condition that is not stated counts as ready, as serving, and as not terminating.
    pub(super) fn state(self) -> State {
        let is_ending = self.terminating.unwrap_or(false) && self.serving.unwrap_or(true);
        match self.ready.unwrap_or(true) {
            true => State::Active,
            false if is_ending => State::Draining,
            false => State::Gone,
        }
    }
}

impl Reading {
    /// The endpoints of a slice at the wanted port. Unreadable ones are left out.
    pub(super) fn rows(&self, slice: &Slice) -> Vec<Row> {
        let is_wanted = self.is_wanted(slice);
        let Some((port, number)) = self.port(slice).filter(|_| is_wanted) else { return vec![] };
        slice.endpoints.iter().filter_map(|item| self.row(slice, item, port, number)).collect()
    }

    /// For a slice without the wanted port: those of its endpoints that were reported before, at
    /// the ports that they had.
    pub(super) fn rows_as_told(&self, slice: &Slice, told: &Journal) -> Vec<Row> {
        let Some(told) = told.last().filter(|_| self.is_wanted(slice)) else { return vec![] };
        let of_item = |item| {
            // The port is only known from what was reported. One host has few endpoints.
            let any = self.row(slice, item, &Port::default(), 1)?;
            let (first, last) = all_ports(any.endpoint.address)?;
            let mut same = told.between(&first, &last);
            let known =
                same.find(|known| known.metadata.get(POD) == any.endpoint.metadata.get(POD))?;
            let name = known.metadata.get(PORT).cloned().unwrap_or_default();
            let app_protocol = known.metadata.get(APP_PROTOCOL).cloned();
            let port = Port { name, app_protocol, ..Port::default() };
            self.row(slice, item, &port, known.address.port()?)
        };
        slice.endpoints.iter().filter_map(of_item).collect()
    }

    fn is_wanted(&self, slice: &Slice) -> bool {
        match (self.family, &*slice.address_type) {
            (Family::Ipv4, "IPv6") | (Family::Ipv6, "IPv4") => false,
            (_, "IPv4" | "IPv6" | "FQDN") => true,
            _ => false,
        }
    }

    /// Whether a slice has the wanted port.
    pub(super) fn has_port(&self, slice: &Slice) -> bool {
        self.port(slice).is_some()
    }

    /// The wanted port, and its number.
    fn port<'a>(&self, slice: &'a Slice) -> Option<(&'a Port, u16)> {
        let number = |port: &Port| u16::try_from(port.port?).ok().filter(|number| 0 < *number);
        let mut ports = slice.ports.iter().filter(|port| is_tcp(port));
        match &self.port {
            PortChoice::Only => {
                let port = ports.next()?;
                ports.next().is_none().then_some(port).zip(number(port))
            }
            PortChoice::Name(name) => {
                let port = ports.find(|port| *port.name == **name)?;
                Some((port, number(port)?))
            }
            PortChoice::Number(wanted) => {
                // A port without a number stands for all of them.
                let port = ports.find(|port| port.port.is_none_or(|p| p == i64::from(*wanted)))?;
                Some((port, *wanted))
            }
        }
    }

    fn row(&self, slice: &Slice, item: &Item, port: &Port, number: u16) -> Option<Row> {
        let text = item.addresses.first()?;
        let address: Address = match text.parse::<IpAddr>() {
            Ok(ip) if (slice.address_type == "IPv6") == ip.is_ipv6() => {
                SocketAddr::new(ip, number).into()
            }
            Err(_) if slice.address_type == "FQDN" => format!("{text}:{number}").parse().ok()?,
            _ => return None,
        };
        let target = item.target_ref.as_ref();
        let mut endpoint = Endpoint::new(address);
        let zone = item.zone.as_ref().or_else(|| item.topology.get("topology.kubernetes.io/zone"));
        if let Some(zone) = zone.filter(|zone| !zone.is_empty()) {
            endpoint = endpoint.zone(&**zone);
        }
        let node = item.node_name.as_ref().or_else(|| item.topology.get("kubernetes.io/hostname"));
        let known = [
            (POD, target.filter(|t| t.kind == "Pod").map(|target| &target.name)),
            ("kubernetes.node", node),
            ("kubernetes.hostname", item.hostname.as_ref()),
            (PORT, Some(&port.name)),
            (APP_PROTOCOL, port.app_protocol.as_ref()),
        ];
        for (key, value) in known {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                endpoint = endpoint.metadata(key, value);
            }
        }
        Some(Row {
            endpoint,
            state: item.conditions.state(),
            uid: target.map_or("", |target| &target.uid).into(),
            is_ipv6: slice.address_type == "IPv6",
            zones: hinted(&item.hints.for_zones, self.zone.as_deref()),
            nodes: hinted(&item.hints.for_nodes, self.node.as_deref()),
        })
    }
}

/// The first and the last address of a host, in their order.
fn all_ports(address: Address) -> Option<(Address, Address)> {
    match address {
        Address::Socket(at) => {
            Some([0, u16::MAX].map(|port| SocketAddr::new(at.ip(), port).into()).into())
        }
        Address::Name { host, .. } => {
            Some([0, u16::MAX].map(|port| Address::Name { host: host.clone(), port }).into())
        }
        _ => None,
    }
}

/// The ports of slices, for an error.
pub(super) fn ports_of(ports: &[Port]) -> String {
    let named: BTreeSet<_> = ports
        .iter()
        .map(|port| {
            let number = port.port.map_or_else(|| "any".to_owned(), |number| number.to_string());
            match (&*port.name, is_tcp(port)) {
                ("", true) => number,
                (name, true) => format!("{name} ({number})"),
                (name, false) => format!("{name} ({number}, not TCP)"),
            }
        })
        .collect();
    if named.is_empty() { "none".into() } else { named.into_iter().collect::<Vec<_>>().join(", ") }
}

fn is_tcp(port: &Port) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

fn hinted(names: &[Name], here: Option<&str>) -> Hinted {
    match here {
        _ if names.is_empty() => Hinted::Nothing,
        Some(here) if names.iter().any(|hint| hint.name == here) => Hinted::Here,
        _ => Hinted::Elsewhere,
    }
}

impl fmt::Display for PortChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => f.write_str("exactly one port"),
            Self::Name(name) => write!(f, "a port {name}"),
            Self::Number(number) => write!(f, "the port {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn reading(port: PortChoice) -> Reading {
        Reading { port, family: Family::Both, zone: None, node: Some("n".into()) }
    }

    #[test]
    fn a_port_without_a_number_stands_for_the_one_that_is_wanted() {
        let slice = json!({
            "metadata": { "name": "a" }, "addressType": "IPv4", "ports": [{ "name": "" }],
            "endpoints": [{ "addresses": ["10.0.0.1"] }],
        });
        let slice: Slice = serde_json::from_value(slice).unwrap();

        let rows = reading(PortChoice::Number(81)).rows(&slice);
        assert_eq!(rows[0].endpoint.address, "10.0.0.1:81".parse().unwrap());
        assert!(!reading(PortChoice::Only).has_port(&slice));
        assert_eq!(ports_of(&slice.ports), "any");
    }

    #[test]
    fn a_service_with_two_ports_needs_a_choice() {
        let ports = json!([{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }]);
        let slice = json!({ "metadata": { "name": "a" }, "addressType": "IPv4", "ports": ports });
        let slice: Slice = serde_json::from_value(slice).unwrap();

        assert!(!reading(PortChoice::Only).has_port(&slice));
        assert!(reading(PortChoice::Name("b".into())).has_port(&slice));
        assert_eq!(ports_of(&slice.ports), "a (1), b (2)");
    }

    proptest! {
        #[test]
        fn no_content_of_a_slice_makes_it_panic(
            kind in "IPv4|IPv6|FQDN|.{0,4}",
            address in "[0-9.]{0,12}|[0-9a-f:]{0,20}|\\PC{0,20}",
            port in any::<Option<i64>>(),
            name in "\\PC{0,8}",
            wanted in 1..=u16::MAX,
        ) {
            let slice = json!({
                "metadata": { "name": name }, "addressType": kind,
                "ports": [{ "name": name, "port": port }],
                "endpoints": [{ "addresses": [address], "hints": { "forNodes": [{ "name": name }] } }],
            });
            let slice: Slice = serde_json::from_value(slice).unwrap();
            for choice in [PortChoice::Only, PortChoice::Name(name.into()), PortChoice::Number(wanted)] {
                for row in reading(choice).rows(&slice) {
                    // Every reported address is valid: it parses as what it prints.
                    let text = row.endpoint.address.to_string();
                    prop_assert_eq!(text.parse::<Address>().unwrap(), row.endpoint.address);
                }
            }
        }
    }
}
