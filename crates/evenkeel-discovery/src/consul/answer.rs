//! Makes endpoints of an agent's answer about a service.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use evenkeel_core::endpoint::{Address, Endpoint};
use serde::{Deserialize, Deserializer};

use super::micro;

/// The greatest weight that is used, which is that of an SRV record.
const MAX_WEIGHT: i64 = 65_535;

/// How rows become endpoints.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) address: AddressOf,
    pub(super) zone_key: String,
    /// Whether endpoints with a warning check are used.
    pub(super) warnings: bool,
    /// Whether the order of the answer has a meaning.
    pub(super) is_ordered: bool,
    /// Whether the tags are those of go-micro.
    pub(super) is_micro: bool,
}

/// Which address of an entry is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressOf {
    /// The service's address, or its node's if the service has none.
    Service,
    /// The node's address, with the service's port.
    Node,
    /// The address with this tag, such as `wan` or `lan_ipv6`. Without one, as [`Self::Service`].
    Tagged(String),
}

/// The content of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) endpoints: Vec<Endpoint>,
    /// The first nodes of the rows; reading them needs a right too.
    pub(super) nodes: Vec<String>,
    /// The ID of each node that has one, both as hashes. A node that lost its data has another.
    pub(super) ids: HashMap<u64, u64>,
    pub(super) rows: usize,
    /// What is wrong with the first unusable row, and how many there are.
    pub(super) skipped: Option<(String, usize)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    #[serde(borrow)]
    node: Node<'a>,
    #[serde(borrow)]
    service: Service<'a>,
    #[serde(borrow, default, deserialize_with = "nullable")]
    checks: Vec<Check<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node<'a> {
    #[serde(rename = "ID", borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    node: Cow<'a, str>,
    #[serde(borrow, default)]
    address: Cow<'a, str>,
    #[serde(borrow, default)]
    datacenter: Cow<'a, str>,
    #[serde(default, deserialize_with = "nullable")]
    meta: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    tagged_addresses: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a> {
    #[serde(rename = "ID", borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    address: Cow<'a, str>,
    #[serde(default)]
    port: i64,
    #[serde(borrow, default)]
    socket_path: Cow<'a, str>,
    #[serde(default, deserialize_with = "nullable")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    meta: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    weights: Weights,
    #[serde(default, deserialize_with = "nullable")]
    tagged_addresses: BTreeMap<String, Tagged>,
}

/// Old agents write these keys in lower case, new ones with capitals.
#[derive(Deserialize)]
struct Tagged {
    #[serde(default, alias = "Address")]
    address: String,
    #[serde(default, alias = "Port")]
    port: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weights {
    passing: i64,
    warning: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(rename = "CheckID", borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
}

/// A `null` counts as absent.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The worst of an entry's checks, including those of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Passing,
    Warning,
    Critical,
    /// An operator has taken it out: it finishes what it has.
    Maintenance,
}

impl Check<'_> {
    fn health(&self) -> Health {
        let id = &*self.id;
        match &*self.status {
            "critical" if id == "_node_maintenance" || id.starts_with("_service_maintenance") => {
                Health::Maintenance
            }
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            _ => Health::Critical,
        }
    }
}

/// Reads the rows of an answer. An unusable row does not affect the others.
///
/// # Errors
/// If it is not an answer at all.
pub(super) fn read(body: &[u8], reading: &Reading) -> Result<Found, serde_json::Error> {
    let rows: Option<Vec<Row<'_>>> = serde_json::from_slice(body)?;
    let rows = rows.unwrap_or_default();
    let mut found = Found { rows: rows.len(), ..Found::default() };
    let mut endpoints: BTreeMap<Address, Endpoint> = BTreeMap::new();
    let mut order = Vec::new();
    for row in rows {
        if !found.nodes.iter().any(|node| *node == row.node.node) && found.nodes.len() < 16 {
            found.nodes.push(row.node.node.clone().into_owned());
        }
        if !row.node.id.is_empty() {
            found.ids.insert(hash_of(&row.node.node), hash_of(&row.node.id));
        }
        match row.endpoint(reading) {
            Ok(Some(endpoint)) => {
                let address = endpoint.address.clone();
                // Of two entries with one address, the one that may get more requests counts: the
                // other is left over from a reschedule.
                match endpoints.get(&address) {
                    Some(other) if endpoint.weight <= other.weight => {}
                    Some(_) => drop(endpoints.insert(address, endpoint)),
                    None => {
                        order.push(address.clone());
                        endpoints.insert(address, endpoint);
                    }
                }
            }
            Ok(None) => {}
            Err(reason) => {
                let (_, count) = found.skipped.get_or_insert((reason, 0));
                *count += 1;
            }
        }
    }
    found.endpoints = if reading.is_ordered {
        order.iter().filter_map(|address| endpoints.remove(address)).collect()
    } else {
        // Agents list in no particular order; sorted, the same set is always equal.
        endpoints.into_values().collect()
    };
    Ok(found)
}

pub(super) fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Row<'_> {
    /// The endpoint, if it may be used.
    fn endpoint(self, reading: &Reading) -> Result<Option<Endpoint>, String> {
        let health = self.checks.iter().map(Check::health).max().unwrap_or(Health::Passing);
        let weight = match health {
            Health::Passing => self.service.weights.passing,
            Health::Warning if reading.warnings => self.service.weights.warning,
            Health::Maintenance => 0,
            Health::Warning | Health::Critical => return Ok(None),
        };
        let address = self.address(&reading.address)?;
        let weight = u32::try_from(weight.clamp(0, MAX_WEIGHT)).unwrap_or(0);
        let (mut tags, mut meta) = (self.service.tags, self.service.meta);
        if reading.is_micro {
            let told = micro::read(tags);
            meta.extend(told.metadata);
            meta.extend(told.version.map(|version| ("version".to_owned(), version)));
            tags = told.others;
        }
        let zone = [&meta, &self.node.meta]
            .into_iter()
            .find_map(|meta| meta.get(&reading.zone_key).cloned());
        let mut endpoint = Endpoint::new(address).weight(weight);
        if let Some(zone) = zone {
            endpoint = endpoint.zone(zone);
        }
        tags.sort_unstable();
        for (key, value) in [
            ("consul.id", self.service.id.into_owned()),
            ("consul.node", self.node.node.into_owned()),
            ("consul.datacenter", self.node.datacenter.into_owned()),
            ("tags", tags.join(",")),
        ] {
            if !value.is_empty() {
                endpoint = endpoint.metadata(key, value);
            }
        }
        for (key, value) in meta {
            endpoint = endpoint.metadata(key, value);
        }
        Ok(Some(endpoint))
    }

    fn address(&self, which: &AddressOf) -> Result<Address, String> {
        let service = &self.service;
        if !service.socket_path.is_empty() {
            return Ok(Address::unix(&*service.socket_path));
        }
        let own = (&*service.address, service.port);
        let (host, port) = match which {
            AddressOf::Node => ("", service.port),
            AddressOf::Service => own,
            AddressOf::Tagged(tag) => match service.tagged_addresses.get(tag) {
                Some(tagged) => {
                    (&*tagged.address, if tagged.port == 0 { service.port } else { tagged.port })
                }
                // A service without an address of its own uses those of its node.
                None => (
                    self.node
                        .tagged_addresses
                        .get(tag)
                        .map_or(own.0, |address| if own.0.is_empty() { address } else { own.0 }),
                    service.port,
                ),
            },
        };
        let host = if host.is_empty() { &*self.node.address } else { host };
        // An IPv6 address has no brackets here, and needs them before a port.
        let text = match host.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => format!("[{v6}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        };
        text.parse().map_err(|error| format!("{}: {error}", service.id))
    }
}

#[cfg(test)]
mod tests;
