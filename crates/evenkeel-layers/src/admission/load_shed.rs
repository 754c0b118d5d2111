//! The server's side: a limit with a short queue, and which requests are refused when it does not
//! drain.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    limit::{AllAlike, Fixed, Limit, ReadPriority, Shed},
    rng::Seeds,
    traffic::{AnyTraffic, Traffic},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::concurrency::{
    ConcurrencyLimitFuture, Limits,
    inside::{Shared, begin, shedding},
};

/// Refuses requests that would wait too long, the least important first. See the [module
/// docs](super).
///
/// Requests beyond the limit wait, more important ones in front of less important ones, up to
/// [`max_queue`](Self::max_queue). A more important request takes the place of a less important
/// one. How long they wait decides the rest: see [`Shed`]. A refused request fails with
/// [`Overloaded`](evenkeel_core::error::Overloaded).
#[derive(Clone)]
pub struct LoadShedLayer<P = AllAlike, X = AnyTraffic> {
    make: Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>,
    max_queue: u32,
    target: Duration,
    interval: Duration,
    seed: Option<u64>,
    limits: Limits,
    shared: Option<Arc<OnceLock<Arc<Shared>>>>,
    priority: P,
    traffic: X,
}

impl LoadShedLayer {
    /// Works on at most `limit` requests at the same time.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn fixed(limit: u32) -> Self {
        let fixed = Fixed::new(limit);
        Self::adaptive(move || fixed)
    }

    /// Works on as many requests at the same time as the limit that `make` makes, which learns from
    /// the requests that end.
    #[must_use]
    pub fn adaptive<L: Limit>(make: impl Fn() -> L + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(move || Box::new(make())),
            max_queue: 1_000,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            seed: None,
            limits: Limits::default(),
            shared: None,
            priority: AllAlike,
            traffic: AnyTraffic,
        }
    }
}

impl<P, X> LoadShedLayer<P, X> {
    /// Sets how many requests may wait. Default 1,000.
    ///
    /// It bounds memory. Waiting times are bounded without it.
    #[must_use]
    pub fn max_queue(mut self, requests: u32) -> Self {
        self.max_queue = requests;
        self
    }

    /// Sets how long requests may wait without that being an overload. Default 5 milliseconds.
    ///
    /// If it is shorter than the scheduler's delays, it sees overload where there is none.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn target(mut self, target: Duration) -> Self {
        assert!(!target.is_zero(), "a target of no time");
        self.target = target;
        self
    }

    /// Sets how long a queue must stand to be an overload, and how long a request waits at most
    /// without one. Default 100 milliseconds.
    ///
    /// It should be several times as long as a request takes.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval of no time");
        self.interval = interval;
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes all services that this layer and its clones make share one limit and one queue. By
    /// default each has its own.
    ///
    /// For axum's `Router::layer`, which makes a service of each route. Call it last: settings
    /// changed after the first service is made do not affect the shared limit.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = Some(Arc::default());
        self
    }

    /// Sets how a request's priority is read. By default all are
    /// [`CRITICAL`](evenkeel_core::limit::Priority::CRITICAL).
    ///
    /// It may be a closure; `HeaderPriority` of evenkeel-http reads a header.
    #[must_use]
    pub fn priority<Q>(self, priority: Q) -> LoadShedLayer<Q, X> {
        let Self { make, max_queue, target, interval, seed, limits, shared, traffic, .. } = self;
        LoadShedLayer { make, max_queue, target, interval, seed, limits, shared, priority, traffic }
    }

    /// Sets until when a request is worked on, and, for limits that learn, how it ended. Default:
    /// until the response is there.
    ///
    /// `HttpTraffic` of evenkeel-http counts it until the end of the response's body.
    #[must_use]
    pub fn traffic<Y>(self, traffic: Y) -> LoadShedLayer<P, Y> {
        let Self { make, max_queue, target, interval, seed, limits, shared, priority, .. } = self;
        LoadShedLayer { make, max_queue, target, interval, seed, limits, shared, priority, traffic }
    }

    /// The limits that this layer and its clones have made and will make. They can be read.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn make_shared(&self) -> Arc<Shared> {
        let Self { max_queue, target, interval, seed, .. } = *self;
        Arc::new(shedding(self.make.clone(), self.limits.clone(), max_queue, move || {
            let seeds = seed.map_or_else(Seeds::from_entropy, Seeds::new);
            (Shed::new().target(target).interval(interval), seeds)
        }))
    }
}

impl<S, P: Clone, X: Clone> Layer<S> for LoadShedLayer<P, X> {
    type Service = LoadShed<S, P, X>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = match &self.shared {
            Some(shared) => shared.get_or_init(|| self.make_shared()).clone(),
            None => self.make_shared(),
        };
        let (priority, traffic) = (self.priority.clone(), self.traffic.clone());
        LoadShed { inner, priority, traffic, shared }
    }
}

impl<P, X> fmt::Debug for LoadShedLayer<P, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadShedLayer")
            .field("max_queue", &self.max_queue)
            .field("target", &self.target)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Refuses requests that would wait too long, the least important first. See the [module
/// docs](super).
#[derive(Clone)]
pub struct LoadShed<S, P = AllAlike, X = AnyTraffic> {
    inner: S,
    priority: P,
    traffic: X,
    shared: Arc<Shared>,
}

impl<S, P, X, R> Service<R> for LoadShed<S, P, X>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    P: ReadPriority<R>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Response = X::Response;
    type Error = BoxError;
    type Future = ConcurrencyLimitFuture<S, X, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let priority = self.priority.priority(&request);
        let (alone, traffic) = (self.shared.alone(), self.traffic.clone());
        begin(&mut self.inner, alone, traffic, request, priority)
    }
}

impl<S: fmt::Debug, P, X> fmt::Debug for LoadShed<S, P, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadShed").field("inner", &self.inner).finish_non_exhaustive()
    }
}
