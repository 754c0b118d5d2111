//! As many of a source's endpoints as one client needs, out of very many.
//!
//! Where a thousand clients call a thousand endpoints, each client keeps connections to about
//! twenty of them. A [`Subset`](evenkeel_core::subset) of core chooses which: random, by an
//! aperture, or Rocksteadier. Its documentation also says how many connections an endpoint then
//! has, and what moves when the set changes.
//!
//! Use it last, behind filters and merges, and directly in front of the balancer. Below some
//! hundreds of clients and endpoints it only makes failures larger. An unhealthy endpoint stays in
//! the subset: health checks and ejection keep requests away from it.
//!
//! Each batch of changes chooses the subset again, in O(n log n) of the source's endpoints. The
//! subset is reported as a whole set, and only if it differs. A balancer does not touch what has
//! not changed.
//!
//! Where a client's place changes while it runs, because clients come and go, give it a new subset
//! through [`SubsetSender`]. Connections to the endpoints that are in both subsets stay.
//!
//! ```
//! use evenkeel::core::{discover::{Discovery, Update}, subset::Rocksteadier};
//! use evenkeel::discovery::{DiscoveryExt, Fixed};
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let all = Fixed::parse((1..=250).map(|host| format!("10.0.0.{host}:80")).collect::<Vec<_>>())?;
//! let client = 7; // of as many as there are: the ordinal of the pod, for example
//! let discovery = all.subset(Rocksteadier::new(20, client));
//!
//! let Some(Ok(Update::Set(set))) = discovery.watch().next().await else { panic!("a set") };
//! assert_eq!(set.len(), 20);
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! # }).unwrap();
//! ```

use std::{fmt, sync::Arc};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
    subset::{Numbers, Subset},
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::Known;

/// How many updates are taken in at most before a subset is chosen.
const MAX_BATCH: usize = 1_024;

/// See the [module docs](self).
pub struct Subsetted<D> {
    source: D,
    choice: watch::Receiver<Arc<dyn Subset>>,
}

/// Gives a [`Subsetted`] discovery another subset. See the [module docs](self).
#[derive(Clone)]
pub struct SubsetSender(watch::Sender<Arc<dyn Subset>>);

impl SubsetSender {
    /// Uses `subset` from now on, in every watch.
    pub fn send(&self, subset: impl Subset) {
        self.0.send_replace(Arc::new(subset));
    }
}

impl<D> Subsetted<D> {
    pub(super) fn new(source: D, subset: impl Subset) -> (SubsetSender, Self) {
        let (sender, choice) = watch::channel(Arc::new(subset) as Arc<dyn Subset>);
        (SubsetSender(sender), Self { source, choice })
    }
}

impl<D: Discovery> Discovery for Subsetted<D> {
    fn watch(&self) -> Watch {
        let changes =
            stream::unfold((self.choice.clone(), true), |(mut choice, is_first)| async move {
                // The first one is there at once. Without a sender there will be no other.
                if !is_first {
                    choice.changed().await.ok()?;
                }
                let subset = choice.borrow_and_update().clone();
                Some((Event::Subset(subset), (choice, false)))
            });
        let batches = self.source.watch().ready_chunks(MAX_BATCH).map(Event::Batch);
        let mut chosen = Chosen::default();
        // It ends when neither can change any more.
        let events = stream::select(changes, batches);
        Box::pin(events.flat_map(move |event| stream::iter(chosen.take(event))))
    }

    fn refresh(&self) {
        self.source.refresh();
    }
}

enum Event {
    Subset(Arc<dyn Subset>),
    Batch(Vec<Result<Update, BoxError>>),
}

/// What is known of the source, and which part of it has been reported.
#[derive(Default)]
struct Chosen {
    subset: Option<Arc<dyn Subset>>,
    known: Known,
    numbers: Numbers,
    told: Option<Vec<Endpoint>>,
}

impl Chosen {
    /// The errors of a batch, and the whole subset if it differs.
    fn take(&mut self, event: Event) -> Vec<Result<Update, BoxError>> {
        let mut news = Vec::new();
        match event {
            Event::Subset(subset) => self.subset = Some(subset),
            Event::Batch(batch) => {
                for said in batch {
                    match said {
                        Ok(update) => _ = self.known.apply(&update),
                        Err(error) => news.push(Err(error)),
                    }
                }
            }
        }
        news.extend(self.choose().map(|set| Ok(Update::Set(set))));
        news
    }

    fn choose(&mut self) -> Option<Vec<Endpoint>> {
        let subset = self.subset.as_ref().filter(|_| self.known.is_spoken())?;
        let all: Vec<_> = self.known.iter().cloned().collect();
        self.numbers.update(&all);
        let chosen = subset.choose(&all, &self.numbers);
        if self.told.as_ref() == Some(&chosen) {
            return None;
        }
        self.told = Some(chosen.clone());
        Some(chosen)
    }
}

impl<D: Clone> Clone for Subsetted<D> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), choice: self.choice.clone() }
    }
}

impl<D: fmt::Debug> fmt::Debug for Subsetted<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subsetted")
            .field("source", &self.source)
            .field("subset", &*self.choice.borrow())
            .finish()
    }
}

impl fmt::Debug for SubsetSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubsetSender").field(&*self.0.borrow()).finish()
    }
}
