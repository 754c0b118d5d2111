//! Hedges: asks a second endpoint if the first is slow, and takes the first good answer.
//!
//! **Use it** against slow tails, for requests that may be processed twice: above a balancer, below
//! retries. **Not** against a service that is slow because it is overloaded: the budget bounds the
//! harm, but a hedge does no good there. **Not** for requests that must be processed only once:
//! they are let through unhedged.
//!
//! * The second attempt is sent when the first has taken longer than a percentile of recent
//!   attempts, or longer than a fixed delay. It goes to an endpoint that the call has not tried, if
//!   another is open.
//! * It is paid from a [`Budget`], which may be that of retries. A throttle is told of each
//!   attempt.
//! * The first *good* answer wins: a failure never beats an attempt that is still under way. The
//!   loser is dropped. If both fail, the caller gets the later failure.
//! * Losers count towards the percentile with the time that they lasted at least, so that the
//!   percentile does not shrink as losers become more frequent.
//!   shorter the more there are of them.
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering::Relaxed}, time::Duration};
//! use evenkeel::core::{BoxError, retry::{AnyRules, Budget}};
//! use evenkeel::hedge::HedgeLayer;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//!
//! let mut client = ServiceBuilder::new()
//!     .layer(
//!         HedgeLayer::after(Duration::from_millis(10), Budget::default())
//!             .rules(AnyRules::idempotent()),
//!     )
//!     .service(service_fn(|_: ()| async {
//!         let attempt = ATTEMPTS.fetch_add(1, Relaxed);
//!         if attempt == 0 {
//!             std::future::pending::<()>().await;
//!         }
//!         Ok::<_, BoxError>(attempt)
//!     }));
//!
//! assert_eq!(client.ready().await?.call(()).await?, 1);
//! assert_eq!(client.counts().cancelled, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Configured
//! ```
//! use std::time::Duration;
//! use evenkeel::core::retry::{AnyRules, Budget};
//! use evenkeel::{hedge::HedgeLayer, retry::RetryLayer};
//!
//! let budget = Budget::share(10.0);
//! let hedge = HedgeLayer::percentile(95.0, budget.clone())
//!     .min_delay(Duration::from_millis(2))
//!     .rules(AnyRules::idempotent())
//!     .below_retry();
//! let retry = RetryLayer::new(budget).rules(AnyRules::idempotent());
//! # drop((hedge, retry));
//! ```
//!
//! # What it costs
//! For each call: a clone of the service and one of the request, two atomic additions, and, if the
//! call has to wait, two readings of the clock and a timer. It allocates nothing, except what these
//! clones allocate. Four times a second one call computes the percentile.
//!
//! [`Budget`]: evenkeel_core::retry::Budget

mod future;

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    load::LatencyWindow,
    retry::{Budget, Replay, Ruled, Rules, Verdict},
};
use evenkeel_metrics::Client;
use tower_layer::Layer;
use tower_service::Service;

pub use self::future::HedgeFuture;
use crate::retry::NoRules;

/// Asks a second endpoint if the first is slow. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct HedgeLayer<P = NoRules> {
    rules: P,
    budget: Budget,
    delay: Delay,
    min_delay: Duration,
    is_below_retry: bool,
}

#[derive(Clone, Copy, Debug)]
enum Delay {
    Fixed(Duration),
    Percentile(f64),
}

impl HedgeLayer {
    /// Hedges attempts that take longer than `percent` of recent ones.
    ///
    /// Until some have been seen, none is hedged. 95 hedges one in twenty. With a much lower value
    /// the budget decides.
    ///
    /// # Panics
    /// If `percent` is not between 1 and 99.9.
    #[must_use]
    pub fn percentile(percent: f64, budget: Budget) -> Self {
        assert!((1.0..=99.9).contains(&percent), "the percentile {percent}");
        Self::new(Delay::Percentile(percent), budget)
    }

    /// Hedges attempts that take longer than `delay`.
    ///
    /// Zero hedges whatever is not answered at once, as far as the budget allows.
    #[must_use]
    pub fn after(delay: Duration, budget: Budget) -> Self {
        Self::new(Delay::Fixed(delay), budget)
    }

    fn new(delay: Delay, budget: Budget) -> Self {
        let min_delay = Duration::from_millis(1);
        Self { rules: NoRules::default(), budget, delay, min_delay, is_below_retry: false }
    }
}

impl<P> HedgeLayer<P> {
    /// Sets what may be hedged, and how: `HttpRetry` of evenkeel-http for HTTP and gRPC,
    /// [`AnyRules::idempotent`](evenkeel_core::retry::AnyRules::idempotent) for anything else that may be processed
    /// twice. There is no default.
    #[must_use]
    pub fn rules<Q>(self, rules: Q) -> HedgeLayer<Q> {
        HedgeLayer {
            rules,
            budget: self.budget,
            delay: self.delay,
            min_delay: self.min_delay,
            is_below_retry: self.is_below_retry,
        }
    }

    /// Sets the shortest delay that a percentile may give. Default one millisecond.
    ///
    /// For a service that answers in microseconds, a timer of a millisecond is not worth its cost.
    #[must_use]
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Says that a retry layer above has the same budget and counts the calls. By default this
    /// layer counts them.
    #[must_use]
    pub fn below_retry(mut self) -> Self {
        self.is_below_retry = true;
        self
    }
}

impl<P: Ruled<S> + Clone, S> Layer<S> for HedgeLayer<P> {
    type Service = Hedge<S, P>;

    fn layer(&self, inner: S) -> Hedge<S, P> {
        let latency = match self.delay {
            Delay::Fixed(_) => None,
            Delay::Percentile(percent) => Some(LatencyWindow::new(percent)),
        };
        let counters = Counters { client: Client::current(), ..Counters::default() };
        let shared = Shared { layer: self.clone(), latency, counters };
        Hedge { inner, shared: Arc::new(shared) }
    }
}

/// What the clones of one service share.
#[derive(Debug)]
struct Shared<P> {
    layer: HedgeLayer<P>,
    latency: Option<LatencyWindow>,
    counters: Counters,
}

impl<P> Shared<P> {
    /// Tells a throttle how an attempt ended. The retry layer above reports by itself the attempt
    /// that its call ends with: a success, or a failure when nothing else is under way.
    #[inline]
    fn tell_budget(&self, verdict: Verdict, is_final: bool) {
        let HedgeLayer { budget, is_below_retry, .. } = &self.layer;
        match verdict {
            Verdict::Success if !is_below_retry => budget.record_success(),
            Verdict::Again { .. } | Verdict::Forbidden if !is_below_retry || !is_final => {
                budget.record_failure();
            }
            _ => {}
        }
    }

    fn delay(&self) -> Option<Duration> {
        match (self.layer.delay, &self.latency) {
            (Delay::Fixed(delay), _) => Some(delay),
            (_, latency) => latency.as_ref()?.percentile().map(|p| p.max(self.layer.min_delay)),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    won: AtomicU64,
    cancelled: AtomicU64,
    client: Client,
}

impl Counters {
    /// Records that a second attempt was sent.
    #[cold]
    fn record_sent(&self) {
        self.sent.fetch_add(1, Relaxed);
        evenkeel_metrics::count_hedge(&self.client);
        let client = self.client.name();
        tracing::debug!(target: "evenkeel::hedge", client, "second attempt");
    }

    /// Records whether the second attempt's answer was taken, and whether the other attempt was cut
    /// off.
    #[cold]
    fn record_end(&self, has_won: bool, is_cancelled: bool) {
        self.won.fetch_add(has_won.into(), Relaxed);
        self.cancelled.fetch_add(is_cancelled.into(), Relaxed);
        evenkeel_metrics::count_hedge_end(&self.client, has_won, is_cancelled);
        let client = self.client.name();
        tracing::debug!(target: "evenkeel::hedge", client, has_won, is_cancelled, "answered");
    }

    /// Records that it was time for a second attempt and none was made.
    #[cold]
    fn record_not_sent(&self, reason: &'static str) {
        evenkeel_metrics::count_hedge_refusal(&self.client, reason);
        let client = self.client.name();
        tracing::debug!(target: "evenkeel::hedge", client, reason, "no second attempt");
    }
}

/// How often something happened since the service was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeCounts {
    /// Second attempts were sent.
    pub sent: u64,
    /// The second attempt's answer was taken.
    pub won: u64,
    /// An attempt was dropped because the other one of its call had answered.
    pub cancelled: u64,
}

/// Asks a second endpoint if the first is slow. See the [module docs](self).
#[derive(Debug)]
pub struct Hedge<S, P> {
    inner: S,
    shared: Arc<Shared<P>>,
}

impl<S, P> Hedge<S, P> {
    /// How many hedges there were, over all clones of this service.
    #[must_use]
    pub fn counts(&self) -> HedgeCounts {
        let Counters { sent, won, cancelled, .. } = &self.shared.counters;
        HedgeCounts {
            sent: sent.load(Relaxed),
            won: won.load(Relaxed),
            cancelled: cancelled.load(Relaxed),
        }
    }

    /// After how long an attempt is hedged now. `None` while too few have been seen.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.shared.delay()
    }
}

impl<S: Clone, P> Clone for Hedge<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S, P, Req> Service<Req> for Hedge<S, P>
where
    P: Rules<Req, <S as Service<<P as Replay<Req>>::Request>>::Response>,
    S: Service<<P as Replay<Req>>::Request> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = P::Response;
    type Error = BoxError;
    type Future = HedgeFuture<S, P, Req, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The ready service is called. It is used for the hedge when it is ready again.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let (call, request) = self.shared.layer.rules.begin(request);
        let first = ready.call(request);
        HedgeFuture::new(ready, self.shared.clone(), call, first)
    }
}

// As for the other parts of a stack: see `retry/none.rs`.
#[diagnostic::do_not_recommend]
impl<S, P> Ruled<Hedge<S, P>> for NoRules where Self: Ruled<S> {}
