//! Some of the endpoints of a source, or all of them changed.
//!
//! [`Filter`] drops endpoints, such as those of another zone or those without certain metadata. An
//! endpoint that changes so that it no longer fits is removed, and comes back when it fits again. A
//! filter can drop every endpoint; then the set is empty.
//!
//! [`Map`] changes endpoints: it sets a priority, another port, a weight from metadata. It may
//! change the address, which identifies an endpoint; `Map` remembers which address a removal means.
//! If two endpoints get the same address, the one that was announced later counts. When it goes,
//! the other takes its place.
//!
//! The functions run whenever an endpoint is announced, not for each request. They should give the
//! same answer for the same endpoint: they run again for one that is announced again unchanged.
//!
//! ```
//! use evenkeel::discovery::{DiscoveryExt, Fixed};
//!
//! let here = Fixed::parse(["10.0.0.1:80"])?
//!     .filter(|endpoint| endpoint.zone.as_deref() != Some("eu-2b"))
//!     .map(|endpoint| endpoint.priority(1));
//! # let _ = here;
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! ```

use std::{collections::HashMap, fmt, sync::Arc};

use evenkeel_core::{
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
};
use futures_util::{StreamExt, stream};

use crate::set::EndpointSet;

/// See the [module docs](self).
pub struct Filter<D, F> {
    source: D,
    keep: Arc<F>,
}

/// See the [module docs](self).
pub struct Map<D, F> {
    source: D,
    change: Arc<F>,
}

impl<D, F> Filter<D, F> {
    pub(super) fn new(source: D, keep: F) -> Self {
        Self { source, keep: Arc::new(keep) }
    }
}

impl<D, F> Map<D, F> {
    pub(super) fn new(source: D, change: F) -> Self {
        Self { source, change: Arc::new(change) }
    }
}

impl<D, F> Discovery for Filter<D, F>
where
    D: Discovery,
    F: Fn(&Endpoint) -> bool + Send + Sync + 'static,
{
    fn watch(&self) -> Watch {
        let keep = self.keep.clone();
        filter_map(self.source.watch(), move |endpoint| keep(&endpoint).then_some(endpoint))
    }

    fn refresh(&self) {
        self.source.refresh();
    }
}

impl<D, F> Discovery for Map<D, F>
where
    D: Discovery,
    F: Fn(Endpoint) -> Endpoint + Send + Sync + 'static,
{
    fn watch(&self) -> Watch {
        let change = self.change.clone();
        filter_map(self.source.watch(), move |endpoint| Some(change(endpoint)))
    }

    fn refresh(&self) {
        self.source.refresh();
    }
}

impl<D: Clone, F> Clone for Filter<D, F> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), keep: self.keep.clone() }
    }
}

impl<D: Clone, F> Clone for Map<D, F> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), change: self.change.clone() }
    }
}

impl<D: fmt::Debug, F> fmt::Debug for Filter<D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<D: fmt::Debug, F> fmt::Debug for Map<D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("source", &self.source).finish_non_exhaustive()
    }
}

fn filter_map<F>(watch: Watch, change: F) -> Watch
where
    F: Fn(Endpoint) -> Option<Endpoint> + Send + 'static,
{
    let mut shown = Shown::default();
    let told = watch.map(move |news| {
        let updates = match news {
            Ok(update) => shown.take(update, &change).map(|update| update.map(Ok)),
            Err(error) => [Some(Err(error)), None],
        };
        stream::iter(updates.into_iter().flatten())
    });
    Box::pin(told.flatten()) as Watch
}

/// What is shown of a source, and from which of the source's endpoints it comes.
#[derive(Debug, Default)]
struct Shown {
    has_spoken: bool,
    /// The address at which each of the source's endpoints is shown.
    shown_at: HashMap<Address, Address>,
    /// The endpoints that map to an address, each with its address in the source. The last one is
    /// shown.
    claims: HashMap<Address, Vec<(Address, Endpoint)>>,
}

impl Shown {
    /// What to report after an update: at most one address appears and one disappears.
    fn take(
        &mut self,
        update: Update,
        change: &impl Fn(Endpoint) -> Option<Endpoint>,
    ) -> [Option<Update>; 2] {
        let is_first_word = !std::mem::replace(&mut self.has_spoken, true);
        let updates = match update {
            Update::Set(endpoints) => return [Some(self.replace(endpoints, change)), None],
            Update::Insert(endpoint) => {
                let source = endpoint.address.clone();
                self.announce(source, change(endpoint))
            }
            Update::Remove(address) => self.announce(address, None),
            _ => return [None, None],
        };
        if is_first_word {
            let whole = self.claims.values().filter_map(|claims| claims.last());
            return [Some(Update::Set(whole.map(|(_, shown)| shown.clone()).collect())), None];
        }
        updates
    }

    fn replace(
        &mut self,
        endpoints: Vec<Endpoint>,
        change: &impl Fn(Endpoint) -> Option<Endpoint>,
    ) -> Update {
        self.shown_at.clear();
        self.claims.clear();
        let mut in_order = EndpointSet::default();
        // A set first: of two endpoints with one address, only the later may claim a place.
        for endpoint in endpoints.into_iter().collect::<EndpointSet>().into_vec() {
            let source = endpoint.address.clone();
            if let Some(shown) = change(endpoint) {
                in_order.insert(shown.clone());
                self.claim(source, shown);
            }
        }
        Update::Set(in_order.into_vec())
    }

    /// Shows `new` for the endpoint of this source address, or nothing.
    fn announce(&mut self, source: Address, new: Option<Endpoint>) -> [Option<Update>; 2] {
        let old_at = self.shown_at.get(&source).cloned();
        let new_at = new.as_ref().map(|new| new.address.clone());
        let before = new_at.as_ref().and_then(|at| self.visible(at)).cloned();
        if let Some(at) = &old_at {
            self.withdraw(&source, at);
        }
        if let Some(new) = new {
            self.claim(source, new);
        }
        let after = new_at.as_ref().and_then(|at| self.visible(at));
        let appears = after.filter(|after| before.as_ref() != Some(after)).cloned();
        let disappears = old_at.filter(|old| new_at.as_ref() != Some(old)).map(|old| {
            // Reported even if the heir was already visible; readers then see no change.
            self.visible(&old).cloned().map_or(Update::Remove(old), Update::Insert)
        });
        [appears.map(Update::Insert), disappears]
    }

    fn visible(&self, at: &Address) -> Option<&Endpoint> {
        self.claims.get(at).and_then(|claims| claims.last()).map(|(_, shown)| shown)
    }

    fn claim(&mut self, source: Address, shown: Endpoint) {
        let at = shown.address.clone();
        self.claims.entry(at.clone()).or_default().push((source.clone(), shown));
        self.shown_at.insert(source, at);
    }

    fn withdraw(&mut self, source: &Address, at: &Address) {
        self.shown_at.remove(source);
        if let Some(claims) = self.claims.get_mut(at) {
            claims.retain(|(claimant, _)| claimant != source);
            if claims.is_empty() {
                self.claims.remove(at);
            }
        }
    }
}
