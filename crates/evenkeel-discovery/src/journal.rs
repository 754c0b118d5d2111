//! The current set and the last changes to it: what all watchers of one source read.
//!
//! A watcher that keeps up gets each change. One that falls behind by more than [`MAX_CHANGES`]
//! changes gets the whole set again, so a slow watcher costs no memory and misses nothing that
//! still matters.

use std::{collections::VecDeque, sync::Arc};

use evenkeel_core::{
    BoxError,
    discover::{Update, Watch},
    endpoint::{Address, Endpoint},
};
use futures_util::stream;
use tokio::sync::watch;

use crate::{error::SourceFailed, set::EndpointSet};

/// How many changes are remembered for watchers that are behind.
const MAX_CHANGES: usize = 1_024;

/// More differences at once than this are told as a whole set.
const MAX_DIFFERENCES: usize = 256;

#[derive(Clone, Debug)]
enum News {
    Insert(Endpoint),
    Remove(Address),
    Failed(SourceFailed),
}

/// The state behind one source of endpoints.
#[derive(Debug)]
pub(crate) struct Journal {
    origin: Arc<str>,
    /// The current set; none until the source has reported one.
    set: Option<EndpointSet>,
    /// The set that was dropped because it was too old, until there is another.
    dropped: Option<EndpointSet>,
    /// The number of the first change in `changes`. A watcher that has read less needs the whole
    /// set.
    first: u64,
    changes: VecDeque<News>,
    /// The last change is a failure, and the source has not recovered since.
    is_failing: bool,
}

impl Journal {
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: origin.into(),
            set: None,
            dropped: None,
            first: 1,
            changes: VecDeque::new(),
            is_failing: false,
        }
    }

    /// How many endpoints are known.
    pub(crate) fn len(&self) -> usize {
        self.set.as_ref().map_or(0, EndpointSet::len)
    }

    /// The number of the change that comes next.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The last set, even if it has become too old to be used.
    pub(crate) fn last(&self) -> Option<&EndpointSet> {
        self.dropped.as_ref().or(self.set.as_ref())
    }

    /// Replaces the whole set; false if it is the same.
    pub(crate) fn replace(&mut self, endpoints: Vec<Endpoint>) -> bool {
        self.recover();
        self.put(endpoints)
    }

    /// Replaces the whole set without saying that all is well again; false if it is the same.
    pub(crate) fn put(&mut self, endpoints: Vec<Endpoint>) -> bool {
        let last = self.last();
        // What is equal is kept once, and is soon compared the next time.
        let share = |new: Endpoint| match last.and_then(|last| last.find(&new.address)) {
            Some(known) if *known == new => known.clone(),
            _ => new,
        };
        let set = endpoints.into_iter().map(share).collect();
        self.put_set(set)
    }

    /// As [`put`](Self::put), but tells the differences if there are few, in whatever order.
    pub(crate) fn turn_into(&mut self, endpoints: Vec<Endpoint>) -> bool {
        let old = self.set.as_ref().filter(|old| !old.is_empty() && self.dropped.is_none());
        let Some(old) = old else { return self.put(endpoints) };
        let new: EndpointSet = endpoints.into_iter().collect();
        let is_new = |endpoint: &&Endpoint| old.find(&endpoint.address) != Some(*endpoint);
        let joined: Vec<_> = new.iter().filter(is_new).cloned().collect();
        let is_gone = |endpoint: &&Endpoint| new.find(&endpoint.address).is_none();
        let gone: Vec<_> = old.iter().filter(is_gone).map(|old| old.address.clone()).collect();
        let differences = joined.len() + gone.len();
        if MAX_DIFFERENCES < differences {
            return self.put_set(new);
        }
        // Endpoints that join come before those that leave.
        joined.into_iter().for_each(|endpoint| _ = self.insert(endpoint));
        gone.iter().for_each(|address| _ = self.remove(address));
        0 < differences
    }

    /// Puts an endpoint in or changes it; false if it is already known as it is.
    pub(crate) fn insert(&mut self, endpoint: Endpoint) -> bool {
        let Some(set) = &mut self.set else {
            return self.replace(vec![endpoint]);
        };
        (self.is_failing, self.dropped) = (false, None);
        if !set.insert(endpoint.clone()) {
            return false;
        }
        self.note(News::Insert(endpoint));
        true
    }

    /// Takes an endpoint out; false if it is not known.
    pub(crate) fn remove(&mut self, address: &Address) -> bool {
        (self.is_failing, self.dropped) = (false, None);
        if !self.set.as_mut().is_some_and(|set| set.remove(address)) {
            return false;
        }
        self.note(News::Remove(address.clone()));
        true
    }

    /// Empties the set because it is too old.
    pub(crate) fn drop_set(&mut self) {
        let old = self.set.take();
        self.put(vec![]);
        self.dropped = old;
    }

    /// Records that the source no longer fails.
    pub(crate) fn recover(&mut self) {
        self.is_failing = false;
    }

    /// Sets the weight of an endpoint; false if that changes nothing.
    pub(crate) fn set_weight(&mut self, address: &Address, weight: u32) -> bool {
        let known = self.set.as_ref().and_then(|set| set.find(address)).cloned();
        known.is_some_and(|endpoint| self.insert(endpoint.weight(weight)))
    }

    /// Records that the source failed, for the watchers. The set stays.
    pub(crate) fn fail(&mut self, error: BoxError) {
        let failed = SourceFailed::new(self.origin.clone(), self.len(), error);
        self.note(News::Failed(failed));
        self.is_failing = true;
    }

    fn put_set(&mut self, set: EndpointSet) -> bool {
        self.dropped = None;
        if self.set.as_ref() == Some(&set) {
            return false;
        }
        self.set = Some(set);
        // The whole set replaces the changes that led to it.
        self.first = self.end() + 1;
        self.changes.clear();
        self.is_failing = false;
        true
    }

    fn note(&mut self, news: News) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back(news);
    }

    /// The next item for a watcher that has read up to `read`.
    pub(crate) fn next(&self, read: &mut u64) -> Option<Result<Update, BoxError>> {
        if *read < self.first
            && let Some(set) = &self.set
        {
            *read = self.end() - u64::from(self.is_failing);
            return Some(Ok(Update::Set(set.to_vec())));
        }
        *read = (*read).max(self.first);
        let change = self.changes.get(usize::try_from(*read - self.first).ok()?)?;
        *read += 1;
        Some(match change.clone() {
            News::Insert(endpoint) => Ok(Update::Insert(endpoint)),
            News::Remove(address) => Ok(Update::Remove(address)),
            News::Failed(failed) => Err(failed.into()),
        })
    }
}

/// The updates of a journal, from the current set on, until its writer is gone.
///
/// `lease` is held as long as the stream: it keeps the writer of the journal alive.
pub(crate) fn follow<L: Send + 'static>(journal: watch::Receiver<Journal>, lease: L) -> Watch {
    struct Follower<L> {
        journal: watch::Receiver<Journal>,
        read: u64,
        _lease: L,
    }
    let follower = Follower { journal, read: 0, _lease: lease };
    Box::pin(stream::unfold(follower, |mut follower| async move {
        loop {
            // Asked before reading: what is written between the two would otherwise be lost.
            let is_over = follower.journal.has_changed().is_err();
            let news = follower.journal.borrow_and_update().next(&mut follower.read);
            if let Some(news) = news {
                return Some((news, follower));
            }
            if is_over {
                return None;
            }
            // An error means that the writer is gone; what it wrote last is still to be read.
            let _ = follower.journal.changed().await;
        }
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        format!("10.0.0.1:{port}").parse().unwrap()
    }

    fn read(journal: &Journal, read: &mut u64) -> Option<Update> {
        journal.next(read).map(|news| news.expect("no failure is expected here"))
    }

    #[test]
    fn a_watcher_gets_the_set_first_and_then_each_change_once() {
        let mut journal = Journal::new("test");
        journal.replace(vec![endpoint(1)]);
        let mut at = 0;

        assert_eq!(read(&journal, &mut at), Some(Update::Set(vec![endpoint(1)])));
        assert_eq!(read(&journal, &mut at), None);

        journal.insert(endpoint(2));
        journal.remove(&endpoint(1).address);
        journal.set_weight(&endpoint(2).address, 7);

        assert_eq!(read(&journal, &mut at), Some(Update::Insert(endpoint(2))));
        assert_eq!(read(&journal, &mut at), Some(Update::Remove(endpoint(1).address)));
        assert_eq!(read(&journal, &mut at), Some(Update::Insert(endpoint(2).weight(7))));
        assert_eq!(read(&journal, &mut at), None);
    }

    #[test]
    fn an_unchanged_announcement_is_no_news() {
        let mut journal = Journal::new("test");

        assert!(journal.replace(vec![]), "an empty set is news while none is known");
        assert!(!journal.replace(vec![]));
        assert!(journal.insert(endpoint(1)));
        assert!(!journal.insert(endpoint(1)));
        assert!(!journal.replace(vec![endpoint(1)]));
        assert!(!journal.set_weight(&endpoint(1).address, 1));
        assert!(!journal.set_weight(&endpoint(2).address, 1), "unknown endpoints are not made up");
        assert!(!journal.remove(&endpoint(2).address));
    }

    #[test]
    fn an_endpoint_that_has_not_changed_is_kept_once() {
        let mut journal = Journal::new("test");
        let of = |version: &str| endpoint(1).metadata("version", version);
        let kept = |journal: &Journal| journal.last().unwrap().to_vec()[0].metadata.clone();
        journal.replace(vec![of("1")]);
        let first = kept(&journal);

        journal.replace(vec![of("1"), endpoint(2)]);
        assert!(Arc::ptr_eq(&kept(&journal), &first));
        journal.turn_into(vec![of("1"), endpoint(3)]);
        assert!(Arc::ptr_eq(&kept(&journal), &first));
        journal.replace(vec![of("2")]);
        assert_eq!(kept(&journal)["version"], "2");
    }

    #[test]
    fn many_differences_are_told_as_a_whole_set() {
        for (differences, is_whole) in [(256, false), (257, true)] {
            let mut journal = Journal::new("test");
            journal.replace(vec![endpoint(1)]);
            let mut at = journal.end();

            // One leaves, the others join.
            journal.turn_into((2..=differences).map(endpoint).collect());

            let first = read(&journal, &mut at).unwrap();
            assert_eq!(matches!(first, Update::Set(_)), is_whole, "{differences}");
        }
    }

    #[test]
    fn a_watcher_that_lags_gets_the_whole_set_and_the_journal_stays_small() {
        let mut journal = Journal::new("test");
        journal.replace(vec![endpoint(1)]);
        let mut at = 0;
        read(&journal, &mut at);

        for weight in 2..=MAX_CHANGES as u32 + 1 {
            journal.set_weight(&endpoint(1).address, weight);
        }
        let mut keeps_up = at;
        assert_eq!(
            read(&journal, &mut keeps_up),
            Some(Update::Insert(endpoint(1).weight(2))),
            "as many changes as are remembered are told one by one"
        );

        journal.set_weight(&endpoint(1).address, 0);
        assert_eq!(read(&journal, &mut at), Some(Update::Set(vec![endpoint(1).weight(0)])));
        assert_eq!(read(&journal, &mut at), None);
        assert_eq!(journal.changes.len(), MAX_CHANGES);
    }

    #[test]
    fn a_failure_is_reported_and_the_set_stays() {
        let mut journal = Journal::new("test");
        let mut at = 0;
        journal.fail("refused".into());
        assert!(journal.next(&mut at).unwrap().is_err());
        assert!(journal.next(&mut at).is_none());

        journal.replace(vec![endpoint(1)]);
        read(&journal, &mut at);
        journal.fail("refused".into());

        let failed = journal.next(&mut at).unwrap().unwrap_err();
        assert_eq!(failed.downcast::<SourceFailed>().unwrap().kept, 1);
        assert_eq!(journal.len(), 1);
    }

    #[test]
    fn a_late_watcher_is_told_of_a_failure_only_while_it_lasts() {
        let mut journal = Journal::new("test");
        journal.replace(vec![endpoint(1)]);
        journal.fail("refused".into());

        let mut at = 0;
        assert!(journal.next(&mut at).unwrap().is_ok());
        assert!(journal.next(&mut at).unwrap().is_err());
        assert!(journal.next(&mut at).is_none());

        journal.replace(vec![endpoint(1)]);
        let mut at = 0;
        assert!(journal.next(&mut at).unwrap().is_ok());
        assert!(journal.next(&mut at).is_none());
    }

    #[tokio::test]
    async fn the_last_change_is_read_before_the_end() {
        let (writer, reader) = watch::channel(Journal::new("test"));
        let mut watch = follow(reader, ());
        writer.send_modify(|journal| {
            journal.replace(vec![endpoint(1)]);
        });

        drop(writer);

        assert_eq!(watch.next().await.unwrap().unwrap(), Update::Set(vec![endpoint(1)]));
        assert!(watch.next().await.is_none());
    }
}
