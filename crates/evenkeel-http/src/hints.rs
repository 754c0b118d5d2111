//! What a request and a response say through their extensions.

use std::sync::Arc;

use evenkeel_core::{
    endpoint::Address,
    hash::xxh64,
    node::Node,
    traffic::{Hints, Tried},
    why::Why,
};

/// Request extension: endpoints that this request must not be sent to.
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(evenkeel::http::Exclude(vec!["10.0.0.2:80".parse().unwrap()]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Exclude(pub Vec<Address>);

/// Request extension: endpoints to try before the policy is asked. The first open one is used.
#[derive(Clone, Debug, Default)]
pub struct Prefer(pub Vec<Address>);

/// Request extension: requests of the same key go to the same endpoint, under a policy that hashes.
///
/// It must be spread over all 64 bits, like the hash that [`of`](Self::of) computes. [`HashBy`](crate::HashBy)
/// computes one from the request itself, unless this extension is there.
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(evenkeel::http::HashKey::of("alice"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub u64);

/// Request extension: the subset of the endpoints that the request prefers, under a policy that
/// [splits](evenkeel_core::policy::Split).
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(evenkeel::http::Subset("canary".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset(pub Arc<str>);

/// Request extension: the latency of this request says nothing about the endpoint.
///
/// For long polls, which are answered when there is news: their latency would distort the estimates of
/// [`PeakEwma`](evenkeel_core::policy::PeakEwma) and of latency-based ejection. Streams and long bodies
/// do not need it: latency ends with the head of the response.
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(evenkeel::http::Untimed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untimed;

impl HashKey {
    /// The hash of a key: its xxHash64, as in Envoy and gRPC.
    #[must_use]
    pub fn of(key: impl AsRef<[u8]>) -> Self {
        Self(xxh64(key.as_ref()))
    }
}

/// Response extension: the node that served the response.
///
/// The leaf puts it there, [`HttpConnector`](crate::HttpConnector) and
/// [`SharedClient`](crate::SharedClient) alike:
///
/// ```
/// use evenkeel::http::ServedBy;
///
/// fn log(response: &http::Response<()>) {
///     if let Some(served_by) = response.extensions().get::<ServedBy>() {
///         println!("{} answered {}", served_by.address(), response.status());
///     }
/// }
/// # log(&http::Response::new(()));
/// ```
#[derive(Clone, Debug)]
pub struct ServedBy(pub Arc<Node>);

impl ServedBy {
    /// The address of the node.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.0.address()
    }
}

/// Reads the hints from a request's extensions.
pub(crate) fn read(extensions: &http::Extensions) -> Hints<'_> {
    // Most requests carry no extensions, and an empty map answers without a look-up.
    if extensions.is_empty() {
        return Hints::default();
    }
    Hints {
        hash: extensions.get::<HashKey>().map(|key| key.0),
        subset: extensions.get::<Subset>().map(|subset| &*subset.0),
        tried: extensions.get::<Tried>(),
        exclude: extensions.get::<Exclude>().map_or(&[], |exclude| &exclude.0),
        why: extensions.get::<Why>(),
        prefer: extensions.get::<Prefer>().map_or(&[], |prefer| &prefer.0),
        is_untimed: extensions.get::<Untimed>().is_some(),
    }
}

/// The request's `Why`, which records how its endpoint is chosen.
pub(crate) fn why(extensions: &http::Extensions) -> Option<Why> {
    if extensions.is_empty() { None } else { extensions.get::<Why>().cloned() }
}

/// Puts into a response's extensions which node served it, and why, if the request has asked.
pub(crate) fn answer(extensions: &mut http::Extensions, node: &Arc<Node>, why: Option<Why>) {
    extensions.insert(ServedBy(node.clone()));
    if let Some(why) = why {
        extensions.insert(why);
    }
}
