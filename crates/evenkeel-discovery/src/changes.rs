//! Endpoints from any stream of [`tower::discover::Change`].
//!
//! For code that already speaks tower, such as a discovery written for tower's own balancer. The
//! keys are those of the stream; which endpoint a removal means is remembered here. A stream can be
//! read only once, so all watchers share what has been read. It is read while there are watchers,
//! pauses when there are none, and goes on from there. Errors are passed on as news. The set stays
//! after an error, and after the stream has ended.
//!
//! ```
//! use evenkeel::core::{discover::{Discovery, Update}, endpoint::Endpoint};
//! use evenkeel::discovery::Changes;
//! use futures_util::{StreamExt, stream};
//! use tower::discover::Change;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let a: Endpoint = "10.0.0.1:80".parse().unwrap();
//! let stream = stream::iter([Ok::<_, std::io::Error>(Change::Insert("a", a.clone()))]);
//!
//! let mut watch = Changes::new(stream).watch();
//! assert_eq!(watch.next().await.unwrap().unwrap(), Update::Set(vec![a]));
//! # });
//! ```

use std::{collections::HashMap, fmt, hash::Hash, pin::pin, sync::Arc};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Watch},
    endpoint::Endpoint,
};
use futures_core::{Stream, future::BoxFuture};
use futures_util::StreamExt;
use tokio::sync::{Mutex, watch};
use tower::discover::Change;

use crate::{
    journal::{Journal, follow},
    running::{Running, Work},
};

/// Hands on a stream of tower's changes to any number of watchers.
#[derive(Clone)]
pub struct Changes {
    journal: watch::Receiver<Journal>,
    /// The task that reads the stream. It is paused without watchers, and none once the stream is
    /// over.
    reading: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    running: Arc<Running>,
}

impl Changes {
    /// The endpoints that `stream` inserts and does not remove.
    ///
    /// Two keys may name the same address; the endpoint is gone when neither names it any more.
    #[must_use]
    pub fn new<S, K, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Change<K, Endpoint>, E>> + Send + 'static,
        K: Hash + Eq + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let (writer, journal) = watch::channel(Journal::new("stream of changes"));
        let reading: BoxFuture<'static, ()> = Box::pin(read(stream, writer));
        Self { journal, reading: Arc::new(Mutex::new(Some(reading))), running: Arc::default() }
    }
}

impl Discovery for Changes {
    fn watch(&self) -> Watch {
        let (journal, reading) = (self.journal.clone(), self.reading.clone());
        if journal.has_changed().is_err() {
            return follow(journal, ());
        }
        self.running.watch(move || Work {
            journal,
            refresh: Arc::default(),
            future: async move {
                let mut reading = reading.lock().await;
                if let Some(rest) = reading.as_mut() {
                    rest.await;
                    *reading = None;
                }
            },
        })
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("journal", &self.journal).finish_non_exhaustive()
    }
}

async fn read<S, K, E>(stream: S, journal: watch::Sender<Journal>)
where
    S: Stream<Item = Result<Change<K, Endpoint>, E>> + Send,
    K: Hash + Eq + Send,
    E: Into<BoxError> + Send + 'static,
{
    let mut stream = pin!(stream);
    let mut named: HashMap<K, Endpoint> = HashMap::new();
    while let Some(change) = stream.next().await {
        let (old, new) = match change {
            Ok(Change::Insert(key, endpoint)) => {
                (named.insert(key, endpoint.clone()), Some(endpoint))
            }
            Ok(Change::Remove(key)) => (named.remove(&key), None),
            Err(error) => {
                let error = error.into();
                journal.send_modify(|journal| journal.fail(error));
                continue;
            }
        };
        let moved = old.filter(|old| new.as_ref().is_none_or(|new| new.address != old.address));
        let heir = moved.as_ref().and_then(|old| {
            named.values().find(|endpoint| endpoint.address == old.address).cloned()
        });
        journal.send_if_modified(|journal| {
            let inserted = [new, heir.clone()].into_iter().flatten();
            let mut changed = inserted.fold(false, |changed, new| journal.insert(new) | changed);
            if let (Some(old), None) = (&moved, &heir) {
                changed |= journal.remove(&old.address);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::discover::Update;
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    type News = Result<Change<u8, Endpoint>, &'static str>;

    fn endpoint(port: u16) -> Endpoint {
        format!("10.0.0.1:{port}").parse().unwrap()
    }

    fn changes() -> (mpsc::UnboundedSender<News>, Changes) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        (sender, Changes::new(stream))
    }

    async fn next(watch: &mut Watch) -> Update {
        watch.next().await.expect("no end").expect("no failure")
    }

    #[tokio::test]
    async fn all_watchers_see_the_one_stream() {
        let (sender, changes) = changes();
        let (mut a, mut b) = (changes.watch(), changes.clone().watch());
        sender.send(Ok(Change::Insert(1, endpoint(1)))).unwrap();

        assert_eq!(next(&mut a).await, Update::Set(vec![endpoint(1)]));
        assert_eq!(next(&mut b).await, Update::Set(vec![endpoint(1)]));

        sender.send(Ok(Change::Insert(1, endpoint(2)))).unwrap();
        for watch in [&mut a, &mut b] {
            assert_eq!(next(watch).await, Update::Insert(endpoint(2)));
            assert_eq!(next(watch).await, Update::Remove(endpoint(1).address));
        }
    }

    #[tokio::test]
    async fn reading_goes_on_where_the_last_watcher_left() {
        let (sender, changes) = changes();
        sender.send(Ok(Change::Insert(1, endpoint(1)))).unwrap();
        let mut watch = changes.watch();
        next(&mut watch).await;
        drop(watch);

        sender.send(Ok(Change::Insert(2, endpoint(2)))).unwrap();
        let mut watch = changes.watch();

        assert_eq!(next(&mut watch).await, Update::Set(vec![endpoint(1)]));
        assert_eq!(next(&mut watch).await, Update::Insert(endpoint(2)));
    }

    #[tokio::test]
    async fn errors_and_the_end_remove_nothing() {
        let (sender, changes) = changes();
        sender.send(Ok(Change::Insert(1, endpoint(1)))).unwrap();
        let mut watch = changes.watch();
        next(&mut watch).await;

        sender.send(Err("broken")).unwrap();
        assert!(watch.next().await.expect("news").is_err());
        drop(sender);
        assert!(watch.next().await.is_none());

        let mut late = changes.watch();
        assert_eq!(
            late.next().now_or_never().flatten().expect("the set").unwrap(),
            Update::Set(vec![endpoint(1)])
        );
        while let Some(news) = late.next().await {
            assert!(news.is_err());
        }
    }

    #[tokio::test]
    async fn an_address_with_two_keys_is_gone_when_both_are() {
        let (sender, changes) = changes();
        let mut watch = changes.watch();
        sender.send(Ok(Change::Insert(1, endpoint(1)))).unwrap();
        next(&mut watch).await;
        sender.send(Ok(Change::Insert(2, endpoint(1).weight(5)))).unwrap();
        assert_eq!(next(&mut watch).await, Update::Insert(endpoint(1).weight(5)));

        sender.send(Ok(Change::Remove(2))).unwrap();
        assert_eq!(next(&mut watch).await, Update::Insert(endpoint(1)));
        sender.send(Ok(Change::Remove(1))).unwrap();
        assert_eq!(next(&mut watch).await, Update::Remove(endpoint(1).address));
    }
}
