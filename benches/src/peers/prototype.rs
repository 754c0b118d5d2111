//! The floor: power of two choices and nothing else. What the balancer costs beyond it is the cost
//! of discovery, gates, outcomes and retries on other nodes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    contender::{Entry, Shared},
    leaf::Leaf,
};

pub(crate) const PROTOTYPE: &str = "prototype (arc-swap p2c)";

/// The prototype's entry in the table.
pub(crate) fn entry(leaf: impl Leaf) -> Entry {
    Entry::new(PROTOTYPE, move |count| {
        Shared(Prototype::new(std::iter::repeat_n(leaf.clone(), count)))
    })
}

/// A fixed set of services. Each call goes to the less busy of two.
struct Prototype<S> {
    set: Arc<ArcSwap<Box<[Arc<Member<S>>]>>>,
    rng: fastrand::Rng,
}

/// On two cache lines of its own, so that neighbours do not contend.
#[repr(align(128))]
struct Member<S> {
    in_flight: AtomicU32,
    service: S,
}

impl<S> Prototype<S> {
    fn new(services: impl Iterator<Item = S>) -> Self {
        let member = |service| Arc::new(Member { in_flight: AtomicU32::new(0), service });
        let set = ArcSwap::from_pointee(services.map(member).collect());
        Self { set: Arc::new(set), rng: fastrand::Rng::new() }
    }
}

impl<S> Clone for Prototype<S> {
    fn clone(&self) -> Self {
        Self { set: self.set.clone(), rng: fastrand::Rng::new() }
    }
}

impl<S: Service<R> + Clone, R> Service<R> for Prototype<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = InFlightFuture<S, S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let set = self.set.load();
        let first = self.rng.usize(..set.len());
        let other = self.rng.usize(..set.len() - 1);
        let second = other + usize::from(first <= other);
        let busy = |index: usize| set[index].in_flight.load(Relaxed);
        let member = &set[if busy(first) <= busy(second) { first } else { second }];
        member.in_flight.fetch_add(1, Relaxed);
        let future = member.service.clone().call(request);
        InFlightFuture { future, _in_flight: InFlight(member.clone()) }
    }
}

/// Counts a member's request until dropped.
struct InFlight<S>(Arc<Member<S>>);

impl<S> Drop for InFlight<S> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

pin_project! {
    struct InFlightFuture<S, F> {
        #[pin]
        future: F,
        _in_flight: InFlight<S>,
    }
}

impl<S, F: Future> Future for InFlightFuture<S, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}
