//! A set of endpoints that keeps its order and looks up an address without a search.

use std::collections::BTreeMap;

use evenkeel_core::endpoint::{Address, Endpoint};

/// Endpoints in the order in which they came, one for each address.
///
/// The order counts: "pick first" reads it, and a round robin that is built twice over the same set
/// should visit it in the same order.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointSet {
    in_order: BTreeMap<u64, Endpoint>,
    places: BTreeMap<Address, u64>,
    place_next: u64,
}

impl EndpointSet {
    /// Inserts `endpoint`, in the position of the one it replaces; false if nothing changed.
    pub(crate) fn insert(&mut self, endpoint: Endpoint) -> bool {
        if let Some(place) = self.places.get(&endpoint.address) {
            let old = self.in_order.insert(*place, endpoint);
            return old.as_ref() != self.in_order.get(place);
        }
        self.places.insert(endpoint.address.clone(), self.place_next);
        self.in_order.insert(self.place_next, endpoint);
        self.place_next += 1;
        true
    }

    /// Removes the endpoint with this address; false if there was none.
    pub(crate) fn remove(&mut self, address: &Address) -> bool {
        self.places.remove(address).and_then(|place| self.in_order.remove(&place)).is_some()
    }

    pub(crate) fn find(&self, address: &Address) -> Option<&Endpoint> {
        self.places.get(address).and_then(|place| self.in_order.get(place))
    }

    /// The endpoints whose addresses lie from `first` to `last`, in the order of addresses.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn between<'a>(
        &'a self,
        first: &Address,
        last: &Address,
    ) -> impl Iterator<Item = &'a Endpoint> {
        self.places.range(first..=last).map(|(_, place)| &self.in_order[place])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.in_order.values()
    }

    pub(crate) fn to_vec(&self) -> Vec<Endpoint> {
        self.iter().cloned().collect()
    }

    pub(crate) fn into_vec(self) -> Vec<Endpoint> {
        self.in_order.into_values().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Of two endpoints with one address, the later counts, in the position of the earlier.
impl FromIterator<Endpoint> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let mut set = Self::default();
        for endpoint in endpoints {
            set.insert(endpoint);
        }
        set
    }
}

impl PartialEq for EndpointSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> Endpoint {
        address.parse().unwrap()
    }

    #[test]
    fn an_endpoint_that_changes_keeps_its_place() {
        let mut set: EndpointSet = ["a:1", "b:1", "c:1"].map(endpoint).into_iter().collect();

        assert!(set.insert(endpoint("b:1").weight(9)));
        assert!(!set.insert(endpoint("b:1").weight(9)), "the same again is no change");

        let expected = [endpoint("a:1"), endpoint("b:1").weight(9), endpoint("c:1")];
        assert_eq!(set.to_vec(), expected);
    }

    #[test]
    fn an_endpoint_that_comes_back_goes_to_the_end() {
        let mut set: EndpointSet = ["a:1", "b:1"].map(endpoint).into_iter().collect();

        assert!(set.remove(&endpoint("a:1").address));
        assert!(!set.remove(&endpoint("a:1").address));
        set.insert(endpoint("a:1"));

        assert_eq!(set.to_vec(), ["b:1", "a:1"].map(endpoint));
    }

    #[test]
    fn two_sets_are_equal_when_their_endpoints_come_in_the_same_order() {
        let set = |names: &[&str]| names.iter().map(|name| endpoint(name)).collect::<EndpointSet>();
        let mut moved = set(&["x:1", "a:1", "b:1"]);
        moved.remove(&endpoint("x:1").address);

        assert_eq!(moved, set(&["a:1", "b:1"]));
        assert_ne!(moved, set(&["b:1", "a:1"]));
        assert_ne!(moved, set(&["a:1"]));
    }
}
