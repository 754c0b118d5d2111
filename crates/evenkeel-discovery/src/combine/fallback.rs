//! A second source that is used while the first has no endpoints.
//!
//! The second source is used while the first's set is empty. It is also used when the first has
//! never had a set: it failed, ended, or was silent for the [`patience`](Fallback::patience). As
//! soon as the first has endpoints, only they are used. A first source that fails later keeps its
//! last good set, so there is no fallback then; the source's own `max_stale` decides what happens
//! after a long failure. Both sources are followed all the time, so switching takes no round trip.
//! Errors of both are passed on. While both fail and neither has endpoints, the error is
//! [`BothFailed`](super::BothFailed), which names both.
//!
//! Use it to put a list from the program's configuration behind a registry. For endpoints that
//! should always be known but used only when others are down, [`merge`](super::merge) them with a
//! higher [`priority`](evenkeel_core::endpoint::Endpoint::priority).
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::discovery::{DiscoveryExt, Fixed, channel};
//!
//! let (sender, registry) = channel();
//! let discovery = registry
//!     .fallback(Fixed::parse(["10.9.0.1:80"])?)
//!     .patience(Duration::from_secs(2));
//! # let _ = (sender, discovery);
//! # Ok::<(), evenkeel::core::endpoint::AddressError>(())
//! ```

use std::{future::ready, time::Duration};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::{Failures, Known, Said, Side, with_end};

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
    patience: Duration,
}

impl<A, B> Fallback<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self { first, second, patience: Duration::from_secs(5) }
    }

    /// Sets how long the first source may be silent at the start. Default: 5 s.
    ///
    /// A short one sends traffic to the second source's endpoints at every start; a long one delays
    /// the first request when the first source is dead but silent.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl<A: Discovery, B: Discovery> Discovery for Fallback<A, B> {
    fn watch(&self) -> Watch {
        let first = with_end(self.first.watch()).map(|said| Event::Said(Side::First, said));
        let second = with_end(self.second.watch()).map(|said| Event::Said(Side::Second, said));
        let patience = self.patience;
        let out_of_patience = stream::once(async move {
            sleep(patience).await;
            Event::OutOfPatience
        });
        let events = stream::select(stream::select(first, second), out_of_patience);
        let mut choice = Choice::default();
        let told = events.flat_map(move |event| {
            let told = choice.take(event).into_iter().flatten().map(Some);
            // The end is an item, so that it does not wait for the patience to run out.
            let end = (choice.ended == 2).then_some(None);
            stream::iter(told.chain(end))
        });
        Box::pin(told.take_while(|item| ready(item.is_some())).filter_map(ready))
    }

    fn refresh(&self) {
        self.first.refresh();
        self.second.refresh();
    }
}

enum Event {
    Said(Side, Said),
    OutOfPatience,
}

#[derive(Debug, Default)]
struct Choice {
    first: Known,
    second: Known,
    failures: Failures,
    /// The first source is no longer waited for.
    is_given_up: bool,
    used: Option<Side>,
    ended: u8,
}

impl Choice {
    /// What to report after an event: an error, an update, both or nothing.
    fn take(&mut self, event: Event) -> [Option<Result<Update, BoxError>>; 2] {
        let (side, said) = match event {
            Event::Said(side, said) => (side, said),
            Event::OutOfPatience => return [None, self.give_up(Side::First).map(Ok)],
        };
        match said {
            Some(Ok(update)) => {
                self.failures.end(side);
                [None, self.apply(side, update).map(Ok)]
            }
            Some(Err(error)) => {
                let has_endpoints = self.first.has_endpoints() || self.second.has_endpoints();
                let error = self.failures.fail(side, error, has_endpoints);
                [Some(Err(error)), self.give_up(side).map(Ok)]
            }
            None => {
                self.ended += 1;
                [None, self.give_up(side).map(Ok)]
            }
        }
    }

    fn apply(&mut self, side: Side, update: Update) -> Option<Update> {
        let changed = match side {
            Side::First => self.first.apply(&update),
            Side::Second => self.second.apply(&update),
        };
        if let Some(switched) = self.switch() {
            return Some(switched);
        }
        (changed && self.used == Some(side)).then_some(update)
    }

    fn give_up(&mut self, side: Side) -> Option<Update> {
        self.is_given_up |= side == Side::First;
        self.switch()
    }

    /// Chooses the source again; returns the whole set if the choice has changed.
    fn switch(&mut self) -> Option<Update> {
        let is_second_allowed = self.first.is_spoken() || self.is_given_up;
        let used = if self.first.has_endpoints() {
            Some(Side::First)
        } else if is_second_allowed && self.second.has_endpoints() {
            Some(Side::Second)
        } else if self.first.is_spoken() {
            Some(Side::First)
        } else {
            (is_second_allowed && self.second.is_spoken()).then_some(Side::Second)
        };
        if used == self.used {
            return None;
        }
        self.used = used;
        used.map(|side| match side {
            Side::First => self.first.whole(),
            Side::Second => self.second.whole(),
        })
    }
}
