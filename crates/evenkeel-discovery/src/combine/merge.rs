//! The endpoints of two sources together.
//!
//! Where both name an address, the first source's endpoint counts. The second's comes back when the
//! first drops it. Neither source waits for the other: the endpoints of one are used while the
//! other is silent. A source that fails or ends keeps its last set in the merged one. Errors of
//! both are passed on, as [`BothFailed`](super::BothFailed) while both fail and neither has
//! endpoints. The watch ends when both have ended.
//!
//! Use it for one service in two registries, or to add a few fixed endpoints to a discovered set.
//! To use one source only while another has nothing, see [`fallback`](super::fallback).

use std::future::ready;

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Update, Watch},
};
use futures_util::{StreamExt, stream};

use super::{Failures, Known, Said, Side, with_end};

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Merge<A, B> {
    first: A,
    second: B,
}

impl<A, B> Merge<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Discovery, B: Discovery> Discovery for Merge<A, B> {
    fn watch(&self) -> Watch {
        let first = with_end(self.first.watch()).map(|said| (Side::First, said));
        let second = with_end(self.second.watch()).map(|said| (Side::Second, said));
        let mut union = Union::default();
        let events = stream::select(first, second);
        Box::pin(events.filter_map(move |(side, said)| ready(union.take(side, said))))
    }

    fn refresh(&self) {
        self.first.refresh();
        self.second.refresh();
    }
}

#[derive(Debug, Default)]
struct Union {
    first: Known,
    second: Known,
    failures: Failures,
}

impl Union {
    fn take(&mut self, side: Side, said: Said) -> Option<Result<Update, BoxError>> {
        let update = match said? {
            Ok(update) => update,
            Err(error) => {
                let has_endpoints = self.first.has_endpoints() || self.second.has_endpoints();
                return Some(Err(self.failures.fail(side, error, has_endpoints)));
            }
        };
        self.failures.end(side);
        let is_first_word = !self.first.is_spoken() && !self.second.is_spoken();
        let changed = match side {
            Side::First => self.first.apply(&update),
            Side::Second => self.second.apply(&update),
        };
        if is_first_word {
            return Some(Ok(self.whole()));
        }
        if !changed {
            return None;
        }
        match (side, update) {
            (Side::First, Update::Insert(endpoint)) => Some(Ok(Update::Insert(endpoint))),
            (Side::First, Update::Remove(address)) => Some(Ok(match self.second.find(&address) {
                Some(heir) => Update::Insert(heir.clone()),
                None => Update::Remove(address),
            })),
            (Side::Second, Update::Insert(endpoint)) => {
                let is_hidden = self.first.find(&endpoint.address).is_some();
                (!is_hidden).then_some(Ok(Update::Insert(endpoint)))
            }
            (Side::Second, Update::Remove(address)) => {
                let is_hidden = self.first.find(&address).is_some();
                (!is_hidden).then_some(Ok(Update::Remove(address)))
            }
            _ => Some(Ok(self.whole())),
        }
    }

    fn whole(&self) -> Update {
        let others = self.second.iter().filter(|other| self.first.find(&other.address).is_none());
        Update::Set(self.first.iter().chain(others).cloned().collect())
    }
}
