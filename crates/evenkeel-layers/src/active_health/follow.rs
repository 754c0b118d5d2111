//! Follows what endpoints report of themselves.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    endpoint::Address,
    health::check::{News, Probe},
    node::{Gate, Node},
    rng::Rng,
    time::Timestamp,
};
use futures_util::StreamExt;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
};

/// How much unread news is kept. When it is full, the tasks that bring more wait.
const MAX_NEWS: usize = 64;

/// A stream that lived this long has worked: the next one is opened with the delay of a first one.
const WORKED_AFTER: Duration = Duration::from_secs(30);

/// What can be heard.
pub(super) enum Followed {
    /// The endpoint reported its health.
    Said(Address, Result<(), BoxError>),
    /// A stream that had worked has ended.
    Broke(Address),
}

/// The streams of all endpoints that have one.
pub(super) struct Following<P> {
    probe: Arc<P>,
    rng: Rng,
    backoff: Backoff,
    sweep_every: Duration,
    next_sweep: Option<Timestamp>,
    /// Each task returns whether there was anything on its stream.
    streams: JoinSet<bool>,
    /// As many as endpoints.
    known: HashMap<Address, Known>,
    by_task: HashMap<Id, Address>,
    sender: mpsc::Sender<(u64, Address, Result<(), BoxError>)>,
    news: mpsc::Receiver<(u64, Address, Result<(), BoxError>)>,
}

struct Known {
    node: Weak<Node>,
    id: u64,
    tries: u32,
    state: State,
}

enum State {
    Open { stream: AbortHandle, since: Timestamp },
    NotBefore(Timestamp),
}

impl<P: Probe> Following<P> {
    pub(super) fn new(probe: Arc<P>, rng: Rng, sweep_every: Duration) -> Self {
        let (sender, news) = mpsc::channel(MAX_NEWS);
        Self {
            probe,
            rng,
            // The delays of gRPC's connections, which its health watch also uses (gRFC A17).
            backoff: Backoff::grpc(Duration::from_secs(1), 1.6, Duration::from_secs(120)),
            sweep_every,
            next_sweep: None,
            streams: JoinSet::new(),
            known: HashMap::new(),
            by_task: HashMap::new(),
            sender,
            news,
        }
    }

    /// Follows `node`, unless it is followed already or must be left alone for now.
    ///
    /// Called after a probe, so that streams are opened at the pace of probes.
    pub(super) fn begin(&mut self, node: &Arc<Node>, now: Timestamp) {
        let address = node.address();
        let tries = match self.known.get(address) {
            Some(known) if known.id == node.id() => match known.state {
                State::Open { .. } => return,
                State::NotBefore(at) if now < at => return,
                State::NotBefore(_) => known.tries,
            },
            Some(_) => {
                self.leave(&address.clone());
                0
            }
            None => 0,
        };
        // It runs in the task of all endpoints, which must survive a panic in the user's code.
        let follow = AssertUnwindSafe(|| self.probe.follow(node));
        let Ok(Some(news)) = catch_unwind(follow) else { return };
        let (id, sender) = (node.id(), self.sender.clone());
        let stream = self.streams.spawn(bring(news, id, address.clone(), sender));
        self.by_task.insert(stream.id(), address.clone());
        let state = State::Open { stream, since: now };
        self.known.insert(address.clone(), Known { node: Arc::downgrade(node), id, tries, state });
        self.next_sweep.get_or_insert(now + self.sweep_every);
    }

    /// When to look next for endpoints that have left.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.next_sweep
    }

    /// Closes the streams of endpoints that have left.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        if self.next_sweep.is_none_or(|at| now < at) {
            return;
        }
        let is_gone = |known: &Known| {
            known.node.upgrade().is_none_or(|node| node.is_closed_by(Gate::Retired))
        };
        let gone = self.known.iter().filter(|(_, known)| is_gone(known));
        let gone: Vec<_> = gone.map(|(address, _)| address.clone()).collect();
        gone.iter().for_each(|address| self.leave(address));
        self.next_sweep = (!self.known.is_empty()).then(|| now + self.sweep_every);
    }

    fn leave(&mut self, address: &Address) {
        if let Some(Known { state: State::Open { stream, .. }, .. }) = self.known.remove(address) {
            self.by_task.remove(&stream.id());
            stream.abort();
        }
    }

    /// Waits for the next thing to hear. It may be dropped at any time.
    pub(super) async fn next(&mut self) -> Followed {
        loop {
            tokio::select! {
                // What was said before the end of a stream is read before that end.
                biased;
                Some((id, address, found)) = self.news.recv() => {
                    if self.known.get(&address).is_some_and(|known| known.id == id) {
                        return Followed::Said(address, found);
                    }
                }
                Some(ended) = self.streams.join_next_with_id() => {
                    if let Some(broke) = self.ended(ended) {
                        return broke;
                    }
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, bool), JoinError>) -> Option<Followed> {
        let (id, has_worked) = ended.unwrap_or_else(|error| (error.id(), false));
        let address = self.by_task.remove(&id)?;
        let now = crate::clock::now();
        let known = self.known.get_mut(&address)?;
        let State::Open { since, .. } = known.state else { return None };
        let was_good = has_worked && WORKED_AFTER <= now.since(since);
        known.tries = if was_good { 0 } else { known.tries + 1 };
        let wait = match known.tries {
            0 => Duration::ZERO,
            tries => self.backoff.delay(tries - 1, &mut self.rng),
        };
        known.state = State::NotBefore(now + wait);
        has_worked.then_some(Followed::Broke(address))
    }
}

/// Reads a stream to its end, and returns whether there was anything on it.
async fn bring(
    mut news: News,
    id: u64,
    address: Address,
    sender: mpsc::Sender<(u64, Address, Result<(), BoxError>)>,
) -> bool {
    let mut has_worked = false;
    while let Some(found) = news.next().await {
        has_worked = true;
        if sender.send((id, address.clone(), found)).await.is_err() {
            break;
        }
    }
    has_worked
}
