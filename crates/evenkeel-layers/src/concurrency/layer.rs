//! How a concurrency limit is configured.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use evenkeel_core::{
    limit::{Aimd, Fixed, Gradient2, Limit, Vegas},
    traffic::AnyTraffic,
};
use tower_layer::Layer;

use super::{
    ConcurrencyLimit, Limits,
    monitor::{Patience, Waiting},
    queue::Queue,
    service::Shared,
};

/// Makes a limit, one for each service or endpoint.
type Make = Arc<dyn Fn() -> Box<dyn Limit> + Send + Sync>;

/// Limits how many calls are in flight at the same time. See the [module docs](super).
#[derive(Clone)]
pub struct ConcurrencyLimitLayer<X = AnyTraffic> {
    pub(super) make: Make,
    pub(super) wait: Option<(u32, Duration)>,
    pub(super) limits: Limits,
    shared: Option<Arc<OnceLock<Arc<Shared>>>>,
    traffic: X,
}

impl ConcurrencyLimitLayer {
    /// Allows at most `limit` calls at the same time.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn fixed(limit: u32) -> Self {
        let fixed = Fixed::new(limit);
        Self::adaptive(move || fixed)
    }

    /// Allows as many calls as the limit that `make` makes, which learns from the calls that end.
    /// `make` is called once for each service or endpoint.
    #[must_use]
    pub fn adaptive<L: Limit>(make: impl Fn() -> L + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(move || Box::new(make())),
            wait: None,
            limits: Limits::default(),
            shared: None,
            traffic: AnyTraffic,
        }
    }

    /// Grows until calls fail. See [`Aimd`].
    #[must_use]
    pub fn aimd() -> Self {
        Self::adaptive(Aimd::new)
    }

    /// Grows while latency is not far above its baseline. See [`Gradient2`].
    #[must_use]
    pub fn gradient2() -> Self {
        Self::adaptive(Gradient2::new)
    }

    /// Grows while almost nothing queues. See [`Vegas`].
    #[must_use]
    pub fn vegas() -> Self {
        Self::adaptive(Vegas::new)
    }
}

impl<X> ConcurrencyLimitLayer<X> {
    /// Lets up to `max_callers` calls wait where the limit stands alone, each for up to `max_wait`.
    /// By default none waits: calls are refused at once.
    ///
    /// A long queue answers late instead of refusing soon, and each waiting call keeps its request
    /// in memory. Below a balancer this has no effect: another endpoint is chosen.
    #[must_use]
    pub fn wait(mut self, max_callers: u32, max_wait: Duration) -> Self {
        self.wait = Some((max_callers, max_wait));
        self
    }

    /// Makes all services that this layer and its clones make share one limit. By default each has
    /// its own.
    ///
    /// For axum's `Router::layer`, which makes a service of each route. Call it last: settings
    /// changed after the first service is made do not affect the shared limit.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = Some(Arc::default());
        self
    }

    /// Sets what tells how a call ended, for limits that learn, and until when it counts as in
    /// flight. It applies where the limit stands alone. By default every error is a drop, and a
    /// call is in flight until its response is there.
    ///
    /// `HttpTraffic` of evenkeel-http counts it until the end of the response's body. Below a
    /// balancer the traffic of the innermost `Connect` decides.
    #[must_use]
    pub fn traffic<Y>(self, traffic: Y) -> ConcurrencyLimitLayer<Y> {
        let Self { make, wait, limits, shared, traffic: _ } = self;
        ConcurrencyLimitLayer { make, wait, limits, shared, traffic }
    }

    /// The limits that this layer and its clones have made and will make. They can be read.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn make_shared(&self) -> Arc<Shared> {
        let wait = self.wait;
        let waiting = move || {
            let (max_callers, max_wait) = wait?;
            let queue = Arc::new(Queue::new(max_callers));
            Some(Waiting { queue, patience: Patience::Fixed(max_wait) })
        };
        Arc::new(Shared::new(self.make.clone(), self.limits.clone(), waiting))
    }
}

impl<T, X: Clone> Layer<T> for ConcurrencyLimitLayer<X> {
    type Service = ConcurrencyLimit<T, X>;

    fn layer(&self, inner: T) -> Self::Service {
        let shared = match &self.shared {
            Some(shared) => shared.get_or_init(|| self.make_shared()).clone(),
            None => self.make_shared(),
        };
        ConcurrencyLimit::new(shared, self.traffic.clone(), inner)
    }
}

impl<X> fmt::Debug for ConcurrencyLimitLayer<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer")
            .field("wait", &self.wait)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
