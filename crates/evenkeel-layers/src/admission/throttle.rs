//! The client's side: refuses a share of its own calls when the other side refuses many.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    error::RequestThrottled,
    limit,
    node::Node,
    observe::{Observer, Report},
    outcome::Outcome,
    rng::Seeds,
    traffic::{AnyTraffic, Traffic},
};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    alone::{Alone, Doorkeeper},
    attempt_end::poll_end,
    clock,
};

/// Refuses a share of calls when the other side refuses many. See the [module docs](super).
///
/// A call that [`traffic`](Self::traffic) judges a failure or throttled counts as refused by the
/// other side. A cancelled call does not count as refused; one that [a
/// deadline](evenkeel_core::cut) cuts off does.
#[derive(Clone, Debug)]
pub struct ThrottleLayer<X = AnyTraffic> {
    ratio: f64,
    padding: u32,
    window: Duration,
    seed: Option<u64>,
    traffic: X,
}

impl ThrottleLayer {
    /// Sends about twice as many calls as are accepted, measured over the last two minutes.
    #[must_use]
    pub fn new() -> Self {
        let window = Duration::from_secs(120);
        Self { ratio: 2.0, padding: 1, window, seed: None, traffic: AnyTraffic }
    }
}

impl Default for ThrottleLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> ThrottleLayer<X> {
    /// Sets how many calls are sent for each accepted call, from 1 to 100. Default 2.
    ///
    /// A value nearer to 1 spares the other side more and notices its recovery later.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets how many calls are added to those that there were, so that the first refusals have
    /// little weight for a client that calls rarely. Default 1.
    #[must_use]
    pub fn padding(mut self, calls: u32) -> Self {
        self.padding = calls;
        self
    }

    /// Sets over how long calls count. Default two minutes.
    ///
    /// Short windows react sooner and swing more. A window below half a second counts as half a
    /// second.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets what tells success from failure. By default every error is a failure.
    #[must_use]
    pub fn traffic<Y>(self, traffic: Y) -> ThrottleLayer<Y> {
        let Self { ratio, padding, window, seed, traffic: _ } = self;
        ThrottleLayer { ratio, padding, window, seed, traffic }
    }
}

impl<S, X: Clone> Layer<S> for ThrottleLayer<X> {
    type Service = Throttle<S, X>;

    /// # Panics
    /// If the ratio is not between 1 and 100, or the window is zero.
    fn layer(&self, inner: S) -> Self::Service {
        let throttle = limit::AdaptiveThrottle::new()
            .ratio(self.ratio)
            .padding(self.padding)
            .window(self.window);
        let seeds = self.seed.map_or_else(Seeds::from_entropy, Seeds::new);
        let monitor = Arc::new(Monitor { throttle, seeds, client: Client::current() });
        Throttle { inner, traffic: self.traffic.clone(), alone: Alone::new(|_| monitor) }
    }
}

/// Refuses a share of calls when the other side refuses many. See the [module docs](super).
pub struct Throttle<S, X = AnyTraffic> {
    inner: S,
    traffic: X,
    alone: Arc<Alone<Monitor>>,
}

struct Monitor {
    throttle: limit::AdaptiveThrottle,
    seeds: Seeds,
    client: Client,
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        if matches!(report.outcome, Outcome::Failure | Outcome::Throttled(_)) {
            self.throttle.record_refusal(clock::now());
        }
    }
}

impl Doorkeeper for Monitor {}

impl<S, X> Throttle<S, X> {
    /// The share of calls that is refused now.
    #[must_use]
    pub fn probability(&self) -> f64 {
        self.alone.monitor.throttle.probability(clock::now())
    }
}

impl<S, X, R> Service<R> for Throttle<S, X>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Response = X::Response;
    type Error = BoxError;
    type Future = ThrottleFuture<S, X, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Monitor { throttle, seeds, client } = &*self.alone.monitor;
        let traffic = self.traffic.clone();
        match throttle.admit(|| seeds.rng().unit(), clock::now) {
            Ok(()) => {
                let attempt = Some(Attempt::new(self.alone.clone()));
                let state = State::Called { future: self.inner.call(request) };
                ThrottleFuture { traffic, attempt, state }
            }
            Err(probability) => {
                evenkeel_metrics::count_throttle(client);
                let client = client.name();
                tracing::debug!(target: "evenkeel::admission", client, probability, "request not sent");
                let state = State::Refused { refused: RequestThrottled::new(probability) };
                ThrottleFuture { traffic, attempt: None, state }
            }
        }
    }
}

impl<S: Clone, X: Clone> Clone for Throttle<S, X> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), traffic: self.traffic.clone(), alone: self.alone.clone() }
    }
}

impl<S: fmt::Debug, X> fmt::Debug for Throttle<S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of the inner service, or a refusal. See the [module docs](super).
    pub struct ThrottleFuture<S, X, R>
    where
        S: Service<R>,
    {
        traffic: X,
        // Reports how the call ended; `None` if it was refused.
        attempt: Option<Attempt<Alone<Monitor>>>,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Refused { refused: RequestThrottled },
        Called { #[pin] future: F },
    }
}

impl<S, X, R> Future for ThrottleFuture<S, X, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Output = Result<X::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProject::Refused { refused } => Poll::Ready(Err((*refused).into())),
            StateProject::Called { future } => {
                poll_end(future, this.attempt, cx, |attempt, result| {
                    this.traffic.finish(attempt, result).map_err(Into::into)
                })
            }
        }
    }
}

impl<S: Service<R>, X, R> fmt::Debug for ThrottleFuture<S, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture").finish_non_exhaustive()
    }
}
