//! Where endpoints come from.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{
    BoxError,
    endpoint::{Address, Endpoint},
};

/// An update of a discovery: a whole set, or one change to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// The whole set. Endpoints that are not in it are gone. Of two with one address, the later one
    /// counts.
    Set(Vec<Endpoint>),
    /// An endpoint is new, or something about it changed.
    Insert(Endpoint),
    /// The endpoint of this address is gone.
    Remove(Address),
}

/// A stream of updates.
///
/// An error is news, not the end: the reader keeps the last set and reads on. If the stream ends,
/// there will be no more changes, and the last set stays.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Update, BoxError>> + Send>>;

/// A cheap handle to a source of endpoints.
///
/// Every watcher gets the current set first, as soon as there is one, and then the changes. When a
/// source fails, it keeps its last good set. It decides by its own rules whether to believe an
/// empty answer.
///
/// The simplest source is a list:
/// ```
/// use evenkeel::core::{discover::Discovery, endpoint::Endpoint};
///
/// let fixed: Vec<Endpoint> = vec!["10.0.0.1:80".parse().unwrap()];
/// let watch = fixed.watch();
/// ```
pub trait Discovery: Send + Sync + 'static {
    /// Starts to follow the set. Nothing happens before the stream is polled.
    fn watch(&self) -> Watch;

    /// Asks for an update soon, because an endpoint could not be reached. Does nothing by default.
    fn refresh(&self) {}
}

impl<D: Discovery + ?Sized> Discovery for Arc<D> {
    fn watch(&self) -> Watch {
        (**self).watch()
    }

    fn refresh(&self) {
        (**self).refresh();
    }
}

impl<D: Discovery + ?Sized> Discovery for Box<D> {
    fn watch(&self) -> Watch {
        (**self).watch()
    }

    fn refresh(&self) {
        (**self).refresh();
    }
}

impl Discovery for Vec<Endpoint> {
    fn watch(&self) -> Watch {
        Box::pin(Once(Some(self.clone())))
    }
}

struct Once(Option<Vec<Endpoint>>);

impl Stream for Once {
    type Item = Result<Update, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(|set| Ok(Update::Set(set))))
    }
}
