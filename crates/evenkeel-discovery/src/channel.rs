//! Endpoints that the program itself announces.
//!
//! The [`Sender`] holds the current set, and replaces it or changes it endpoint by endpoint. Every
//! watcher of the [`ChannelDiscovery`] gets the set first and then the changes. A watcher that
//! falls more than 1,024 changes behind gets the whole set again, so memory is bounded by the set
//! itself. When the last sender is dropped, the set stays and the watches end.
//!
//! Use it in tests, for a set that your own control plane pushes, or as the bridge from any client
//! library with callbacks. For a source that must be asked and can fail, use [`poll`](crate::poll)
//! or [`watch`](crate::watch).
//!
//! ```
//! use evenkeel::core::{discover::{Discovery, Update}, endpoint::Endpoint};
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (sender, discovery) = evenkeel::discovery::channel();
//! let a: Endpoint = "10.0.0.1:80".parse().unwrap();
//! let mut watch = discovery.watch();
//!
//! sender.set([a.clone()]);
//! assert_eq!(watch.next().await.unwrap().unwrap(), Update::Set(vec![a.clone()]));
//!
//! sender.set_weight(&a.address, 0);
//! assert_eq!(watch.next().await.unwrap().unwrap(), Update::Insert(a.weight(0)));
//! # });
//! ```

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Watch},
    endpoint::{Address, Endpoint},
};
use tokio::sync::watch;

use crate::journal::{Journal, follow};

/// A sender of endpoints and the discovery that hands them on.
///
/// Watchers wait until the sender has announced a set for the first time; an empty set counts.
#[must_use]
pub fn channel() -> (Sender, ChannelDiscovery) {
    let (writer, journal) = watch::channel(Journal::new("channel"));
    (Sender { journal: writer }, ChannelDiscovery { journal })
}

/// Announces endpoints to the watchers of a [`ChannelDiscovery`].
///
/// What has not changed is not announced again. A sender never waits and works outside a runtime.
#[derive(Clone, Debug)]
pub struct Sender {
    journal: watch::Sender<Journal>,
}

impl Sender {
    /// Replaces the whole set. Of two endpoints with one address, the later counts.
    pub fn set(&self, endpoints: impl IntoIterator<Item = impl Into<Endpoint>>) {
        // Collected outside: the iterator is the caller's code and must not run under the lock.
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        self.journal.send_if_modified(|journal| journal.replace(endpoints));
    }

    /// Adds an endpoint, or replaces the one with its address.
    pub fn insert(&self, endpoint: impl Into<Endpoint>) {
        let endpoint = endpoint.into();
        self.journal.send_if_modified(|journal| journal.insert(endpoint));
    }

    /// Removes the endpoint with this address, if there is one.
    pub fn remove(&self, address: &Address) {
        self.journal.send_if_modified(|journal| journal.remove(address));
    }

    /// Sets the weight of the endpoint with this address, if there is one. 0 drains it.
    pub fn set_weight(&self, address: &Address, weight: u32) {
        self.journal.send_if_modified(|journal| journal.set_weight(address, weight));
    }

    /// Reports to the watchers that there is no fresh news because of `error`. The set stays.
    pub fn fail(&self, error: impl Into<BoxError>) {
        let error = error.into();
        self.journal.send_modify(|journal| journal.fail(error));
    }
}

/// Hands on what its [`Sender`] announces.
#[derive(Clone, Debug)]
pub struct ChannelDiscovery {
    journal: watch::Receiver<Journal>,
}

impl Discovery for ChannelDiscovery {
    fn watch(&self) -> Watch {
        follow(self.journal.clone(), ())
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::discover::Update;
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        format!("10.0.0.1:{port}").parse().unwrap()
    }

    fn now(watch: &mut Watch) -> Option<Update> {
        watch.next().now_or_never().flatten().map(Result::unwrap)
    }

    #[test]
    fn every_watcher_gets_the_current_set_first() {
        let (sender, discovery) = channel();
        let mut early = discovery.watch();
        assert_eq!(now(&mut early), None);
        sender.set([endpoint(1)]);
        assert_eq!(now(&mut early), Some(Update::Set(vec![endpoint(1)])));
        sender.insert(endpoint(2));

        let mut late = discovery.clone().watch();

        assert_eq!(now(&mut late), Some(Update::Set(vec![endpoint(1), endpoint(2)])));
        assert_eq!(now(&mut early), Some(Update::Insert(endpoint(2))));
        assert_eq!(now(&mut early), None);
        assert_eq!(now(&mut late), None);
    }

    #[test]
    fn the_set_outlives_its_sender_and_the_watch_ends() {
        let (sender, discovery) = channel();
        let clone = sender.clone();
        sender.set([endpoint(1)]);
        drop(sender);
        let mut watch = discovery.watch();
        assert_eq!(now(&mut watch), Some(Update::Set(vec![endpoint(1)])));
        assert_eq!(watch.next().now_or_never().map(|end| end.is_none()), None, "a sender is left");

        drop(clone);

        assert!(watch.next().now_or_never().expect("the end").is_none());
        let mut late = discovery.watch();
        assert_eq!(now(&mut late), Some(Update::Set(vec![endpoint(1)])));
    }

    #[test]
    fn an_empty_set_is_announced_and_a_failure_removes_nothing() {
        let (sender, discovery) = channel();
        let mut watch = discovery.watch();

        sender.set(Vec::<Endpoint>::new());
        assert_eq!(now(&mut watch), Some(Update::Set(vec![])));

        sender.insert(endpoint(1));
        sender.fail("the control plane is away");
        assert_eq!(now(&mut watch), Some(Update::Insert(endpoint(1))));
        assert!(watch.next().now_or_never().flatten().expect("news").is_err());
        assert_eq!(now(&mut discovery.watch()), Some(Update::Set(vec![endpoint(1)])));
    }
}
