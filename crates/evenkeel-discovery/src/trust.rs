//! What a registry says, how far it is believed, and what watchers are told of it.
//!
//! Three answers are suspicious: one without any endpoint after one that had some, one that misses
//! endpoints after the registry's state was rebuilt, and one that misses some soon after the
//! registry was away. Such answers come from agents that restart with empty data, servers that
//! restore a snapshot, tokens that expire, and leases that ran out while they could not be renewed.
//! Services enter themselves again within seconds. So missing endpoints are kept for a while, and
//! new ones are used at once.
//!
//! This is arithmetic: it is told the time, and writes only into the journal that watchers read.

use std::{collections::HashMap, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
};
use tokio::time::Instant;

use crate::{
    error::{NotConfirmed, chain},
    journal::Journal,
    set::EndpointSet,
    settings::Settings,
};

/// A registry that was away for longer may have lost entries that could not be renewed.
const AWAY: Duration = Duration::from_secs(3);

/// How many errors of one outage are passed on.
const MAX_REPORTED_ERRORS: usize = 8;

/// All endpoints that a registry has at one moment, and what is to be known of this answer.
#[derive(Debug)]
#[must_use]
pub struct Answer {
    endpoints: Vec<Endpoint>,
    is_certain: bool,
    is_rebuilt: bool,
    is_ordered: bool,
    trouble: Option<BoxError>,
}

impl Answer {
    /// An answer that continues the one before it.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        let (is_certain, is_rebuilt, is_ordered) = (false, false, false);
        Self { endpoints, is_certain, is_rebuilt, is_ordered, trouble: None }
    }

    /// Makes the answer believed whatever it misses.
    pub fn certain(mut self) -> Self {
        self.is_certain = true;
        self
    }

    /// Sets whether the registry's state was rebuilt since the last answer. Default: no.
    ///
    /// It may have been from a snapshot or from nothing, so what the answer misses is doubted.
    pub fn rebuilt(mut self, is_rebuilt: bool) -> Self {
        self.is_rebuilt = is_rebuilt;
        self
    }

    /// Makes the order count: watchers get the whole set whenever it changes.
    ///
    /// By default they get the differences, or the whole set if there are more than 256.
    pub fn ordered(mut self) -> Self {
        self.is_ordered = true;
        self
    }

    /// Sets what is wrong although there is an answer. Default: nothing.
    ///
    /// It is passed on like a failure of the session, and lasts until an answer comes without it.
    pub fn trouble(mut self, trouble: Option<BoxError>) -> Self {
        self.trouble = trouble;
        self
    }
}

/// What became different in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An endpoint is new, or something about it changed.
    Insert(Endpoint),
    /// The endpoint of this address is gone.
    Remove(Address),
}

/// The source failed for so long that its last endpoints are no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no news for {max_age:?}, so the last endpoints are no longer used")]
#[non_exhaustive]
pub struct Stale {
    /// How long the last endpoints were used while the source failed.
    pub max_age: Duration,
}

/// How far a source is believed, from its first session to its last.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    hold: Duration,
    max_stale: Option<Duration>,
    doubt: Option<Doubt>,
    /// How many sessions have ended since the last answer.
    ended: u32,
    /// When the first of them ended.
    lost: Option<Instant>,
    /// When the first failure was that no answer followed.
    silent: Option<Instant>,
    failing: Option<Failing>,
    /// What is to be logged.
    pub(crate) events: Vec<Event>,
}

/// Endpoints that go missing are kept.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    /// The registry was away, so the doubt lasts even while nothing is missing.
    was_away: bool,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    /// The errors passed on since then; a broken connection has several texts that take turns.
    told: Vec<String>,
}

/// What is logged and counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The source begins to fail, with this error.
    Fails(String),
    /// It fails again.
    FailsStill(String),
    /// It works again after this time.
    Works(Duration),
}

impl Trust {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { hold: settings.hold, max_stale: settings.max_stale, ..Self::default() }
    }

    /// Takes an answer; true if watchers get another set.
    pub(crate) fn take(&mut self, journal: &mut Journal, answer: Answer, now: Instant) -> bool {
        let Answer { mut endpoints, is_certain, is_rebuilt, is_ordered, trouble } = answer;
        let has_known = journal.last().is_some_and(|last| !last.is_empty());
        let was_away = self.lost.is_some_and(|lost| AWAY < now - lost);
        if was_away && has_known {
            self.doubt = Some(Doubt { since: now, was_away });
        }
        if is_rebuilt || (endpoints.is_empty() && has_known) {
            self.doubt.get_or_insert(Doubt { since: now, was_away: false });
        }
        let mut missing = 0;
        match self.doubt {
            Some(doubt) if now.duration_since(doubt.since) < self.hold && !is_certain => {
                let union;
                (union, missing) = unite(journal, &endpoints);
                if 0 < missing || doubt.was_away {
                    endpoints = union;
                } else {
                    self.doubt = None;
                }
            }
            _ => self.doubt = None,
        }
        let told = journal.end();
        let is_news =
            if is_ordered { journal.put(endpoints) } else { journal.turn_into(endpoints) };
        if 0 < missing || trouble.is_some() {
            // It is no good news yet, but the registry has answered.
            (self.ended, self.lost, self.silent) = (0, None, None);
        } else {
            self.end_failure(journal, now);
        }
        if 0 < missing {
            if journal.end() != told {
                // Watchers take a change for good news, which this is not.
                self.failing.iter_mut().for_each(|failing| failing.told.clear());
            }
            self.tell(journal, NotConfirmed { missing }.into(), now);
        }
        if let Some(error) = trouble {
            self.tell(journal, error, now);
        }
        is_news
    }

    /// Takes changes to the last answer. `whole` gives the whole set after them, which is needed if
    /// something is doubted.
    pub(crate) fn change(
        &mut self,
        journal: &mut Journal,
        changes: Vec<Change>,
        whole: impl FnOnce() -> Vec<Endpoint>,
        now: Instant,
    ) {
        let has_joined = changes.iter().any(|change| matches!(change, Change::Insert(_)));
        let may_be_emptied = !has_joined && journal.len() <= changes.len();
        let is_first = journal.last().is_none();
        if is_first || may_be_emptied || self.doubt.is_some() || self.lost.is_some() {
            self.take(journal, Answer::new(whole()), now);
            return;
        }
        for change in changes {
            match change {
                Change::Insert(endpoint) => journal.insert(endpoint),
                Change::Remove(address) => journal.remove(&address),
            };
        }
        self.end_failure(journal, now);
    }

    /// Whether the same answer again would be no news, nor be needed to end a doubt.
    pub(crate) fn is_settled(&self) -> bool {
        self.doubt.is_none() && self.lost.is_none() && self.failing.is_none()
    }

    /// When what is missing is no longer kept. `None` if nothing is doubted, or for ever.
    pub(crate) fn doubted_until(&self) -> Option<Instant> {
        self.doubt.and_then(|doubt| doubt.since.checked_add(self.hold))
    }

    /// Records good news: nothing is wrong any more.
    pub(crate) fn end_failure(&mut self, journal: &mut Journal, now: Instant) {
        (self.ended, self.lost, self.silent) = (0, None, None);
        journal.recover();
        if let Some(failing) = self.failing.take() {
            self.events.push(Event::Works(now - failing.since));
        }
    }

    /// Records that something is wrong, and that no answer came. The set stays.
    pub(crate) fn fail(&mut self, journal: &mut Journal, error: BoxError, now: Instant) {
        self.silent.get_or_insert(now);
        self.tell(journal, error, now);
    }

    /// Records that a session has ended. Returns how many had ended since the last answer.
    pub(crate) fn end_session(&mut self, now: Instant) -> u32 {
        self.lost.get_or_insert(now);
        self.ended = self.ended.saturating_add(1);
        self.ended - 1
    }

    /// When the last set is too old to be used, unless an answer comes. `None` if it never is.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.silent.zip(self.max_stale).and_then(|(silent, max_age)| silent.checked_add(max_age))
    }

    /// Drops the last set, which is too old.
    pub(crate) fn drop_stale(&mut self, journal: &mut Journal, now: Instant) {
        journal.drop_set();
        // This is passed on, whatever was passed on before.
        self.failing.iter_mut().for_each(|failing| failing.told.clear());
        self.tell(journal, Stale { max_age: self.max_stale.unwrap_or_default() }.into(), now);
    }

    /// Passes an error on: of one outage each once, and no more than [`MAX_REPORTED_ERRORS`].
    fn tell(&mut self, journal: &mut Journal, error: BoxError, now: Instant) {
        let text = chain(&*error);
        match &mut self.failing {
            Some(failing) => {
                self.events.push(Event::FailsStill(text.clone()));
                if MAX_REPORTED_ERRORS <= failing.told.len() || failing.told.contains(&text) {
                    return;
                }
                failing.told.push(text);
            }
            None => {
                self.events.push(Event::Fails(text.clone()));
                self.failing = Some(Failing { since: now, told: vec![text] });
            }
        }
        journal.fail(error);
    }
}

/// What is known and what an answer adds, and how many of them the answer misses. A known endpoint
/// keeps its position, with the data of the answer.
fn unite(journal: &Journal, answer: &[Endpoint]) -> (Vec<Endpoint>, usize) {
    let mut new: HashMap<_, _> = answer.iter().map(|named| (&named.address, named)).collect();
    let mut missing = 0;
    let mut union = Vec::with_capacity(answer.len());
    for known in journal.last().into_iter().flat_map(EndpointSet::iter) {
        let named = new.remove(&known.address);
        missing += usize::from(named.is_none());
        union.push(named.unwrap_or(known).clone());
    }
    union.extend(answer.iter().filter(|named| new.contains_key(&named.address)).cloned());
    (union, missing)
}

#[cfg(test)]
mod tests;
