//! All slices of a service, and the endpoints that they add up to.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use evenkeel_core::endpoint::{Address, Endpoint};

use super::{
    reading::{Family, Hinted, Reading, Row, State, ports_of},
    slice::Slice,
};
use crate::journal::Journal;

/// The metadata key that marks an endpoint that is used although it terminates.
const TERMINATING: &str = "kubernetes.terminating";

/// The known slices by name, each parsed once.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slices: BTreeMap<String, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    uid: String,
    version: u64,
    rows: Vec<Row>,
    /// The ports of the slice, if the wanted one is not among them.
    misfit: Option<String>,
}

impl Table {
    /// Inserts a slice, or replaces it.
    ///
    /// If it has endpoints but not the wanted port, those that were reported before stay as they
    /// were. When a port is renamed, it changes its name slice by slice, and no pod stops listening
    /// for it.
    pub(super) fn put(&mut self, slice: Slice, reading: &Reading, told: &Journal) {
        let is_misfit = !slice.endpoints.is_empty() && !reading.has_port(&slice);
        let rows =
            if is_misfit { reading.rows_as_told(&slice, told) } else { reading.rows(&slice) };
        let known = Known {
            version: slice.metadata.version(),
            rows,
            misfit: is_misfit.then(|| ports_of(&slice.ports)),
            uid: slice.metadata.uid,
        };
        self.slices.insert(slice.metadata.name, known);
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.slices.remove(name);
    }

    /// Whether both tables have slices but none in common, which never happens at once in one
    /// cluster.
    pub(super) fn is_unlike(&self, other: &Self) -> bool {
        let uids = |table: &Self| table.slices.values().map(|known| known.uid.clone()).collect();
        let (mine, others): (HashSet<String>, HashSet<String>) = (uids(self), uids(other));
        !mine.is_empty() && !others.is_empty() && mine.is_disjoint(&others)
    }

    /// The existing ports, if there are slices with endpoints but none with an endpoint at the
    /// wanted port.
    pub(super) fn misfit(&self) -> Option<String> {
        let has_rows = |known: &Known| known.misfit.is_none() && !known.rows.is_empty();
        let misfits: Vec<_> = self.slices.values().filter_map(|k| k.misfit.as_deref()).collect();
        (!self.slices.values().any(has_rows) && !misfits.is_empty()).then(|| misfits.join(", "))
    }

    /// The endpoints of all slices together, each once.
    pub(super) fn endpoints(&self, reading: &Reading) -> Vec<Endpoint> {
        let mut rows = self.each_once(reading.family);
        rows.retain(|row| row.state != State::Gone);
        let has_active = rows.iter().any(|row| row.state == State::Active);
        if has_active {
            follow_hints(&mut rows);
        }
        let others = match reading.family {
            Family::Both => self.ipv6_addresses(),
            _ => HashMap::new(),
        };
        let endpoint = |row: &Row| {
            let endpoint = to_endpoint(row, has_active);
            match others.get(&row.uid).filter(|_| !row.is_ipv6) {
                Some(other) => endpoint.alternatives([*other]),
                None => endpoint,
            }
        };
        rows.into_iter().map(endpoint).collect()
    }

    /// The IPv6 address of each pod that has one and may get requests.
    fn ipv6_addresses(&self) -> HashMap<Arc<str>, SocketAddr> {
        let rows = self.slices.values().flat_map(|known| &known.rows);
        let usable =
            rows.filter(|row| row.is_ipv6 && row.state != State::Gone && !row.uid.is_empty());
        let known = usable.filter_map(|row| match row.endpoint.address {
            Address::Socket(address) => Some((row.uid.clone(), address)),
            _ => None,
        });
        known.collect()
    }

    /// One row for each address, and for each pod where a pod counts once.
    fn each_once(&self, family: Family) -> Vec<&Row> {
        let mut addresses: BTreeMap<&Address, (&Row, u64)> = BTreeMap::new();
        for known in self.slices.values() {
            for row in &known.rows {
                let found = (row, known.version);
                addresses
                    .entry(&row.endpoint.address)
                    .and_modify(|best| *best = better(*best, found))
                    .or_insert(found);
            }
        }
        let mut rows: Vec<&Row> = addresses.into_values().map(|(row, _)| row).collect();
        let is_second_choice = match family {
            Family::PreferIpv4 | Family::Both => |row: &Row| row.is_ipv6,
            Family::PreferIpv6 => |row: &Row| !row.is_ipv6,
            Family::Ipv4 | Family::Ipv6 => return rows,
        };
        let first: HashSet<_> = rows
            .iter()
            .filter(|row| row.state != State::Gone && !is_second_choice(row))
            .map(|row| row.uid.clone())
            .collect();
        rows.retain(|row| {
            !is_second_choice(row) || row.uid.is_empty() || !first.contains(&row.uid)
        });
        rows
    }
}

/// Which of two rows with one address counts. Of one pod, it is the row in the slice that was
/// written last, since a pod that moves is in both for a while. Of two pods, it is the one in the
/// better state.
fn better<'a>(a: (&'a Row, u64), b: (&'a Row, u64)) -> (&'a Row, u64) {
    let b_counts = if a.0.uid == b.0.uid { a.1 < b.1 } else { (a.0.state, a.1) < (b.0.state, b.1) };
    if b_counts { b } else { a }
}

/// Keeps only the active rows that are meant for this place, if all of them have hints and some are
/// for here: first by node, then by zone (the rules of kube-proxy).
fn follow_hints(rows: &mut Vec<&Row>) {
    for hint in [|row: &Row| row.nodes, |row: &Row| row.zones] {
        let active = || rows.iter().filter(|row| row.state == State::Active);
        let all_say = active().all(|row| hint(row) != Hinted::Nothing);
        let some_here = active().any(|row| hint(row) == Hinted::Here);
        if all_say && some_here {
            rows.retain(|row| row.state != State::Active || hint(row) == Hinted::Here);
            return;
        }
    }
}

/// A terminating endpoint gets no new requests, unless there are no others.
fn to_endpoint(row: &Row, has_active: bool) -> Endpoint {
    let endpoint = row.endpoint.clone();
    match row.state {
        State::Draining if has_active => endpoint.weight(0).metadata(TERMINATING, "true"),
        State::Draining => endpoint.metadata(TERMINATING, "true"),
        State::Active | State::Gone => endpoint,
    }
}
