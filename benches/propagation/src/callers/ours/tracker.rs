//! Tracks the nodes of a balancer: when they are added, changed and removed, and when they are
//! tried.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel::core::{
    connect::Connect,
    endpoint::Address,
    node::{Gate, Node},
};
use tower::Service;

use super::News;
use crate::{lines::tell, moment::Moment};

/// How often nodes are inspected. This is the precision of the times.
const TICK: Duration = Duration::from_millis(1);

/// The weights of at most this many nodes are watched.
const MAX_WATCHED_NODES: usize = 64;

/// The attempts, with endpoint and time.
pub(super) type Attempts = Arc<Mutex<Vec<(SocketAddr, Moment)>>>;

/// Collects the reports of all balancers.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    met: Sender<Met>,
    attempts: Attempts,
}

#[derive(Debug)]
enum Met {
    Came(Watched),
    Went { balancer: usize, address: SocketAddr, at: Moment },
}

#[derive(Debug)]
struct Watched {
    balancer: usize,
    address: SocketAddr,
    node: Weak<Node>,
    weight: u32,
}

impl Tracker {
    /// Starts a thread that reports everything it sees.
    pub(super) fn start() -> Self {
        let (met, meetings) = channel();
        std::thread::spawn(move || watch(&meetings));
        Self { met, attempts: Attempts::default() }
    }

    /// All attempts so far.
    pub(super) fn attempts(&self) -> Vec<(SocketAddr, Moment)> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tracks everything that this balancer connects to.
    pub(super) fn track<C>(&self, balancer: usize, connect: C) -> Tracked<C> {
        Tracked { connect, balancer, tracker: self.clone() }
    }
}

/// Reports until no balancer connects any more.
fn watch(meetings: &Receiver<Met>) {
    let (mut joining, mut watched) = (Vec::new(), Vec::new());
    loop {
        // The thread polls and is not woken, because waking it would be work for the measured
        // process.
        std::thread::sleep(TICK);
        loop {
            match meetings.try_recv() {
                Ok(Met::Came(node)) => joining.push(node),
                Ok(Met::Went { balancer, address, at }) => tell(&News::Left(balancer, address, at)),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => break,
            }
        }
        joining = joined(joining, &mut watched);
        watched.retain_mut(is_there);
    }
}

/// Reports which nodes can be picked now, and returns those that cannot.
fn joined(joining: Vec<Watched>, watched: &mut Vec<Watched>) -> Vec<Watched> {
    // Nodes of one batch open in the order of joining: while the first is closed, the others need
    // no look.
    let first = joining.first().and_then(|first| first.node.upgrade());
    if first.is_some_and(|node| node.is_closed_by(Gate::Joining))
        && MAX_WATCHED_NODES < joining.len()
    {
        return joining;
    }
    let (mut still, mut open) = (Vec::new(), Vec::new());
    for mut one in joining {
        let Some(node) = one.node.upgrade() else { continue };
        if node.is_closed_by(Gate::Joining) {
            still.push(one);
        } else {
            one.weight = node.weight();
            open.push(one);
        }
    }
    // One time for all, because reporting many takes longer than seeing them.
    let now = Moment::now();
    for one in open {
        tell(&News::Joined(one.balancer, one.address, now));
        if watched.len() < MAX_WATCHED_NODES {
            watched.push(one);
        }
    }
    still
}

fn is_there(one: &mut Watched) -> bool {
    let Some(node) = one.node.upgrade() else { return false };
    let weight = node.weight();
    if weight != one.weight {
        one.weight = weight;
        tell(&News::Weight(one.balancer, one.address, weight, Moment::now()));
    }
    true
}

/// A `Connect` whose nodes are tracked.
#[derive(Clone, Debug)]
pub(super) struct Tracked<C> {
    connect: C,
    balancer: usize,
    tracker: Tracker,
}

impl<C: Connect> Connect for Tracked<C> {
    type Service = TrackedService<C::Service>;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> Self::Service {
        let presence = match node.address() {
            Address::Socket(address) => {
                let (balancer, address) = (self.balancer, *address);
                let watched = Watched { balancer, address, node: Arc::downgrade(node), weight: 0 };
                // At the end of the run there is no receiver any more.
                _ = self.tracker.met.send(Met::Came(watched));
                Some(Arc::new(Presence { balancer, address, tracker: self.tracker.clone() }))
            }
            _ => None,
        };
        TrackedService { inner: self.connect.connect(node), presence }
    }

    fn traffic(&self) -> C::Traffic {
        self.connect.traffic()
    }
}

/// Kept while the balancer has the node, or while an attempt is in flight.
#[derive(Debug)]
struct Presence {
    balancer: usize,
    address: SocketAddr,
    tracker: Tracker,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let (balancer, address, at) = (self.balancer, self.address, Moment::now());
        _ = self.tracker.met.send(Met::Went { balancer, address, at });
    }
}

/// The service of a tracked node.
#[derive(Clone, Debug)]
pub(super) struct TrackedService<S> {
    inner: S,
    presence: Option<Arc<Presence>>,
}

impl<S: Service<R>, R> Service<R> for TrackedService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        if let Some(presence) = &self.presence {
            let attempts = &presence.tracker.attempts;
            let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            attempts.push((presence.address, Moment::now()));
        }
        self.inner.call(request)
    }
}
