//! Reading the updates of a discovery, in tests.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{collections::BTreeMap, time::Duration};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
};
use futures_util::StreamExt;
use tokio::time::timeout;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn endpoint(address: &str) -> Endpoint {
    address.parse().unwrap()
}

/// A watch and the set that it has reported so far, as a balancer would keep it.
pub(crate) struct Watching {
    watch: Watch,
    set: BTreeMap<Address, Endpoint>,
    /// The least number of endpoints since the first.
    pub(crate) least: usize,
    /// The reported failures.
    pub(crate) failures: Vec<BoxError>,
}

impl Watching {
    pub(crate) fn new(discovery: &impl Discovery) -> Self {
        Self { watch: discovery.watch(), set: BTreeMap::new(), least: usize::MAX, failures: vec![] }
    }

    /// Takes the next item; false if it is a failure.
    pub(crate) async fn next(&mut self) -> bool {
        let news = timeout(MINUTE, self.watch.next()).await.expect("news within a minute");
        match news.expect("no end") {
            Ok(Update::Set(endpoints)) => {
                self.set = endpoints.into_iter().map(|e| (e.address.clone(), e)).collect();
            }
            Ok(Update::Insert(endpoint)) => {
                self.set.insert(endpoint.address.clone(), endpoint);
            }
            Ok(Update::Remove(address)) => {
                self.set.remove(&address);
            }
            Ok(other) => panic!("an update of a new kind: {other:?}"),
            Err(error) => {
                self.failures.push(error);
                return false;
            }
        }
        self.least = self.least.min(self.set.len());
        true
    }

    /// Reads on until `is_so` is true for the set.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&BTreeMap<Address, Endpoint>) -> bool) {
        let reached = async {
            while self.least == usize::MAX || !is_so(&self.set) {
                self.next().await;
            }
        };
        let in_time = timeout(MINUTE, reached).await;
        assert!(in_time.is_ok(), "the set stayed {:?}; {:?}", self.set, self.failures);
    }

    /// Reads on until the set has these addresses and weights.
    pub(crate) async fn until_weights(&mut self, expected: &[(&str, u32)]) {
        self.until(|set| {
            set.len() == expected.len()
                && expected.iter().all(|(address, weight)| {
                    set.get(&address.parse().unwrap()).is_some_and(|e| e.weight == *weight)
                })
        })
        .await;
    }

    /// Reads on until the set has these addresses.
    pub(crate) async fn until_addresses(&mut self, expected: &[&str]) {
        let addresses: Vec<Address> = expected.iter().map(|text| text.parse().unwrap()).collect();
        self.until(|set| {
            set.len() == addresses.len() && addresses.iter().all(|a| set.contains_key(a))
        })
        .await;
    }

    /// Reads on until a failure is reported.
    pub(crate) async fn until_failure(&mut self) -> &BoxError {
        while self.next().await {}
        self.failures.last().expect("a failure was told")
    }

    /// Takes everything that is reported within `time`.
    pub(crate) async fn during(&mut self, time: Duration) {
        let _ = timeout(time, async {
            loop {
                self.next().await;
            }
        })
        .await;
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.set.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn find(&self, address: &str) -> Option<&Endpoint> {
        self.set.get(&address.parse().unwrap())
    }
}
