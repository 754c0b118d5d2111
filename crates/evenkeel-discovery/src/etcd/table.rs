//! Keys and the endpoints in their values.

use std::collections::{BTreeMap, HashMap};

use evenkeel_core::endpoint::{Address, Endpoint};

use crate::watch::Change;

/// The endpoints of each key, and for each address the keys that name it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    keys: HashMap<Vec<u8>, Row>,
    addresses: BTreeMap<Address, Named>,
}

/// What is known of one key.
#[derive(Clone, Debug)]
struct Row {
    addresses: Vec<Address>,
    stamp: Stamp,
}

/// The keys that name an address, in their order. There may be several, as after a restart with
/// another id; the last counts. It is a list because there is usually one key, for which a map
/// would take a thousand bytes.
#[derive(Clone, Debug, Default)]
struct Named(Vec<(Vec<u8>, Endpoint)>);

impl Named {
    fn insert(&mut self, key: &[u8], endpoint: Endpoint) {
        match self.place(key) {
            Ok(place) => self.0[place].1 = endpoint,
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (key.to_vec(), endpoint));
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Ok(place) = self.place(key) {
            self.0.remove(place);
        }
    }

    fn last(&self) -> Option<&Endpoint> {
        self.0.last().map(|(_, endpoint)| endpoint)
    }

    fn place(&self, key: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_slice().cmp(key))
    }
}

/// When a key was last written, and its lease. No other cluster has the same stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) revision: i64,
    pub(super) lease: i64,
}

/// The net effect of a series of changes: for each address, the last one. So an entry that expired
/// and was made again, as after an outage of the registry, does not leave and join as an endpoint.
pub(super) fn net(changes: Vec<Change>) -> Vec<Change> {
    let address = |change: &Change| match change {
        Change::Insert(endpoint) => endpoint.address.clone(),
        Change::Remove(address) => address.clone(),
    };
    let last: HashMap<_, _> = changes.iter().map(address).zip(0..).collect();
    let numbered = changes.into_iter().zip(0..);
    numbered
        .filter(|(change, at)| last[&address(change)] == *at)
        .map(|(change, _)| change)
        .collect()
}

impl Table {
    /// All endpoints, in the order of their addresses.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.addresses.values().filter_map(Named::last).cloned().collect()
    }

    /// Any one key, and its stamp.
    pub(super) fn sample(&self) -> Option<(&[u8], Stamp)> {
        self.keys.iter().next().map(|(key, row)| (&key[..], row.stamp))
    }

    /// Replaces the endpoints of a key.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        endpoints: Vec<Endpoint>,
        changes: &mut Vec<Change>,
    ) {
        let new: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        let row = Row { addresses: new.clone(), stamp };
        let old = self.keys.insert(key.to_vec(), row).map_or(vec![], |row| row.addresses);
        for address in old.into_iter().filter(|address| !new.contains(address)) {
            self.unname(key, address, changes);
        }
        for endpoint in endpoints {
            let address = endpoint.address.clone();
            let keys = self.addresses.entry(address).or_default();
            keys.insert(key, endpoint);
            changes.extend(keys.last().cloned().map(Change::Insert));
        }
    }

    /// Removes a key.
    pub(super) fn delete(&mut self, key: &[u8], changes: &mut Vec<Change>) {
        let old = self.keys.remove(key).map_or(vec![], |row| row.addresses);
        for address in old {
            self.unname(key, address, changes);
        }
    }

    fn unname(&mut self, key: &[u8], address: Address, changes: &mut Vec<Change>) {
        let Some(keys) = self.addresses.get_mut(&address) else { return };
        keys.remove(key);
        match keys.last() {
            Some(other) => changes.push(Change::Insert(other.clone())),
            None => {
                self.addresses.remove(&address);
                changes.push(Change::Remove(address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        address.parse().unwrap()
    }

    fn put(table: &mut Table, key: &str, endpoint: &Endpoint) -> Vec<Change> {
        let mut changes = vec![];
        table.put(key.as_bytes(), Stamp::default(), vec![endpoint.clone()], &mut changes);
        changes
    }

    fn delete(table: &mut Table, key: &str) -> Vec<Change> {
        let mut changes = vec![];
        table.delete(key.as_bytes(), &mut changes);
        changes
    }

    #[test]
    fn keys_come_change_and_go() {
        let mut table = Table::default();
        let (a, b) = (endpoint("a:1"), endpoint("b:1"));

        assert_eq!(put(&mut table, "1", &a), [Change::Insert(a.clone())]);
        let heavy = a.clone().weight(7);
        assert_eq!(put(&mut table, "1", &heavy), [Change::Insert(heavy)]);
        let moved = [Change::Remove(a.address.clone()), Change::Insert(b.clone())];
        assert_eq!(put(&mut table, "1", &b), moved);
        assert_eq!(delete(&mut table, "1"), [Change::Remove(b.address)]);
        assert_eq!(delete(&mut table, "1"), []);
        assert_eq!(table.endpoints(), []);
    }

    #[test]
    fn keys_without_an_endpoint_add_none() {
        let mut table = Table::default();
        let unreadable =
            |table: &mut Table| table.put(b"README", Stamp::default(), vec![], &mut vec![]);
        unreadable(&mut table);
        put(&mut table, "1", &endpoint("a:1"));
        put(&mut table, "1", &endpoint("b:1"));
        assert_eq!(table.endpoints(), [endpoint("b:1")]);

        table.put(b"1", Stamp::default(), vec![], &mut vec![]);
        unreadable(&mut table);
        delete(&mut table, "README");
        assert_eq!(table.endpoints(), []);
    }

    #[test]
    fn an_endpoint_whose_entry_is_deleted_and_put_again_does_not_leave() {
        let mut table = Table::default();
        let (a, b) = (endpoint("a:1"), endpoint("b:1"));
        put(&mut table, "1", &a);
        put(&mut table, "2", &b);

        let mut changes = delete(&mut table, "1");
        changes.extend(delete(&mut table, "2"));
        changes.extend(put(&mut table, "3", &a));

        assert_eq!(net(changes), [Change::Remove(b.address), Change::Insert(a)]);
    }

    #[test]
    fn an_address_in_two_keys_goes_with_the_last_of_them() {
        let mut table = Table::default();
        let (a, heavy) = (endpoint("a:1"), endpoint("a:1").weight(7));
        put(&mut table, "1", &a);
        put(&mut table, "2", &heavy);
        assert_eq!(table.endpoints(), [heavy]);

        assert_eq!(delete(&mut table, "2"), [Change::Insert(a.clone())]);
        assert_eq!(delete(&mut table, "1"), [Change::Remove(a.address)]);
    }
}
