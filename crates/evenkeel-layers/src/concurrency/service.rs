//! What the layer makes: a service where its inner is one, and a `Connect` where its inner is one.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    limit::{Limit, Priority, Shed},
    node::Node,
    rng::Seeds,
    traffic::Traffic,
};
use evenkeel_metrics::Client;
use tower_service::Service;

use super::{
    Limits,
    future::{ConcurrencyLimitFuture, begin},
    monitor::{Monitor, Patience, Waiting},
    queue::Queue,
};
use crate::{alone::Alone, observers::observers_of};

/// Limits how many calls are in flight at the same time. See the [module docs](super).
pub struct ConcurrencyLimit<T, X> {
    inner: T,
    traffic: X,
    shared: Arc<Shared>,
}

/// What the clones share.
pub(crate) struct Shared {
    make: Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>,
    limits: Limits,
    waiting: Box<dyn Fn() -> Option<Waiting> + Send + Sync>,
    client: Client,
    /// Where the limit stands alone. Made at the first call, since it is not needed below a
    /// balancer.
    alone: OnceLock<Arc<Alone<Monitor>>>,
}

impl Shared {
    pub(super) fn new(
        make: Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>,
        limits: Limits,
        waiting: impl Fn() -> Option<Waiting> + Send + Sync + 'static,
    ) -> Self {
        let client = Client::current();
        Self { make, limits, waiting: Box::new(waiting), client, alone: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn alone(&self) -> &Arc<Alone<Monitor>> {
        self.alone.get_or_init(|| {
            let make = || Monitor::alone((self.make)(), &self.limits, (self.waiting)());
            Alone::new(|_| self.client.scope(make))
        })
    }
}

impl<T, X> ConcurrencyLimit<T, X> {
    pub(super) fn new(shared: Arc<Shared>, traffic: X, inner: T) -> Self {
        Self { inner, traffic, shared }
    }
}

impl<C: Connect, X> Connect for ConcurrencyLimit<C, X> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        let Shared { make, limits, .. } = &*self.shared;
        // A service that is made again keeps what was learnt of its node.
        if !observers_of::<Monitor>(node).any(|monitor| monitor.is_one_of(limits)) {
            Monitor::observe(make(), limits, node);
        }
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<S, X, R> Service<R> for ConcurrencyLimit<S, X>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Response = X::Response;
    type Error = BoxError;
    type Future = ConcurrencyLimitFuture<S, X, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // No permit is taken here: a service that is ready and idle would hold it.
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (alone, traffic) = (self.shared.alone(), self.traffic.clone());
        begin(&mut self.inner, alone, traffic, request, Priority::default())
    }
}

impl<T: Clone, X: Clone> Clone for ConcurrencyLimit<T, X> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            traffic: self.traffic.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<T: fmt::Debug, X> fmt::Debug for ConcurrencyLimit<T, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("inner", &self.inner)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

/// Makes a limit in front of which requests wait as `shed` says.
pub(crate) fn shedding(
    make: Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>,
    limits: Limits,
    max_queue: u32,
    shed: impl Fn() -> (Shed, Seeds) + Send + Sync + 'static,
) -> Shared {
    Shared::new(make, limits, move || {
        let (shed, seeds) = shed();
        let queue = Arc::new(Queue::new(max_queue));
        Some(Waiting { queue, patience: Patience::Shed { shed, seeds } })
    })
}
