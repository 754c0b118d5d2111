//! Discoveries made of others: in sequence, together, filtered, changed, in subsets.
//!
//! Every discovery has the methods of [`DiscoveryExt`]. The result is a discovery too, so the
//! methods can be chained. It needs no task or connection beyond those of its parts.
//!
//! ```
//! use evenkeel::core::{discover::{Discovery, Update}, endpoint::Endpoint};
//! use evenkeel::discovery::{DiscoveryExt, Fixed};
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let near = Fixed::parse(["10.0.0.1:80", "10.0.0.2:80"])?;
//! let far = Fixed::parse(["10.9.0.1:80"])?;
//!
//! let discovery = near
//!     .filter(|endpoint| endpoint.address.to_string() != "10.0.0.2:80")
//!     .merge(far.map(|endpoint| endpoint.priority(1)));
//!
//! let mut watch = discovery.watch();
//! let mut last = vec![];
//! while let Some(Ok(Update::Set(set))) = watch.next().await {
//!     last = set;
//! }
//! assert_eq!(last, ["10.0.0.1:80".parse()?, "10.9.0.1:80".parse::<Endpoint>()?.priority(1)]);
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! # }).unwrap();
//! ```

pub mod fallback;
pub mod filter_map;
pub mod merge;
pub mod subset;

use std::{error::Error, fmt};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
    subset::Subset,
};
use futures_core::Stream;
use futures_util::{StreamExt, stream};

pub use self::{
    fallback::Fallback,
    filter_map::{Filter, Map},
    merge::Merge,
    subset::{SubsetSender, Subsetted},
};
use crate::{error::chain, set::EndpointSet};

/// Combines and changes discoveries.
pub trait DiscoveryExt: Discovery + Sized {
    /// The endpoints of both; where both name an address, this one's endpoint counts.
    ///
    /// See the [module docs](merge).
    fn merge<D: Discovery>(self, second: D) -> Merge<Self, D> {
        Merge::new(self, second)
    }

    /// The endpoints of `second` while this discovery has none.
    ///
    /// See the [module docs](fallback).
    fn fallback<D: Discovery>(self, second: D) -> Fallback<Self, D> {
        Fallback::new(self, second)
    }

    /// Only the endpoints for which `keep` is true.
    ///
    /// See the [module docs](filter_map).
    fn filter<F>(self, keep: F) -> Filter<Self, F>
    where
        F: Fn(&Endpoint) -> bool + Send + Sync + 'static,
    {
        Filter::new(self, keep)
    }

    /// Each endpoint as changed by `change`.
    ///
    /// See the [module docs](filter_map).
    fn map<F>(self, change: F) -> Map<Self, F>
    where
        F: Fn(Endpoint) -> Endpoint + Send + Sync + 'static,
    {
        Map::new(self, change)
    }

    /// As many of the endpoints as one client of very many needs.
    ///
    /// See the [module docs](subset).
    fn subset(self, subset: impl Subset) -> Subsetted<Self> {
        Subsetted::new(self, subset).1
    }

    /// A subset that can be replaced while it runs, as when the client's place among all clients
    /// changes.
    ///
    /// See the [module docs](subset).
    fn subset_that_changes(self, subset: impl Subset) -> (SubsetSender, Subsetted<Self>) {
        Subsetted::new(self, subset)
    }
}

impl<D: Discovery> DiscoveryExt for D {}

/// Which of two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

/// An item of a source; none when its watch has ended.
type Said = Option<Result<Update, BoxError>>;

/// The watch with its end as an item of its own.
fn with_end(watch: Watch) -> impl Stream<Item = Said> + Send {
    watch.map(Some).chain(stream::iter([None]))
}

/// Both of two sources fail, and neither has endpoints.
///
/// Its source is the error of the one that failed last.
#[derive(Debug)]
#[non_exhaustive]
pub struct BothFailed {
    /// The last error of the other one.
    pub other: String,
    is_second: bool,
    source: BoxError,
}

impl fmt::Display for BothFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (other, this) = if self.is_second { ("first", "second") } else { ("second", "first") };
        write!(f, "both sources fail ({other}: {}; {this}: {})", self.other, chain(&*self.source))
    }
}

impl Error for BothFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// The last errors of two failing sources, so that a broken source behind another is named too.
#[derive(Debug, Default)]
struct Failures {
    first: Option<String>,
    second: Option<String>,
}

impl Failures {
    /// The error to report when one side fails; `has_endpoints` while either side has any.
    fn fail(&mut self, side: Side, error: BoxError, has_endpoints: bool) -> BoxError {
        let (own, other) = match side {
            Side::First => (&mut self.first, &self.second),
            Side::Second => (&mut self.second, &self.first),
        };
        *own = Some(chain(&*error));
        match other {
            Some(other) if !has_endpoints => {
                let is_second = side == Side::Second;
                BothFailed { other: other.clone(), is_second, source: error }.into()
            }
            _ => error,
        }
    }

    /// Records that a side no longer fails.
    fn end(&mut self, side: Side) {
        match side {
            Side::First => self.first = None,
            Side::Second => self.second = None,
        }
    }
}

/// The known set of a source; none until it has reported one.
#[derive(Debug, Default)]
struct Known {
    set: Option<EndpointSet>,
}

impl Known {
    /// Applies an update; false if it changes nothing.
    fn apply(&mut self, update: &Update) -> bool {
        let set = self.set.get_or_insert_default();
        match update {
            Update::Set(endpoints) => {
                let new = endpoints.iter().cloned().collect();
                let changed = *set != new;
                *set = new;
                changed
            }
            Update::Insert(endpoint) => set.insert(endpoint.clone()),
            Update::Remove(address) => set.remove(address),
            _ => false,
        }
    }

    fn is_spoken(&self) -> bool {
        self.set.is_some()
    }

    fn has_endpoints(&self) -> bool {
        self.set.as_ref().is_some_and(|set| !set.is_empty())
    }

    fn find(&self, address: &Address) -> Option<&Endpoint> {
        self.set.as_ref().and_then(|set| set.find(address))
    }

    fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.set.iter().flat_map(EndpointSet::iter)
    }

    fn whole(&self) -> Update {
        Update::Set(self.iter().cloned().collect())
    }
}
