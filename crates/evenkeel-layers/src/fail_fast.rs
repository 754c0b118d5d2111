//! Fails calls at once while the service below has not been ready for a given time.
//!
//! **Use it** above a balancer. If no endpoint can be reached, the first callers wait as long as
//! this layer is configured to. From then on every caller gets an error at once, until an endpoint
//! is available again. Without it each of them waits as long as the balancer's `max_wait`. **Not**
//! above a service that becomes ready only while it is polled, such as tower's `Reconnect`: callers
//! that give up at once would never make it ready. A balancer has a task of its own that does.
//!
//! Calls fail with [`FailedFast`]. Each caller first asks the service below, so that the very first
//! call after it has recovered goes through. If no caller asked for twice the time, nothing is
//! known any more: the next caller waits again.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use evenkeel::core::{BoxError, endpoint::Endpoint, error::{FailedFast, cause}, node::Node};
//! use evenkeel::{balance::BalanceLayer, fail_fast::FailFastLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let no_endpoints: Vec<Endpoint> = Vec::new();
//! let client = ServiceBuilder::new()
//!     .layer(FailFastLayer::new(Duration::from_millis(20)))
//!     .layer(BalanceLayer::p2c(no_endpoints))
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }));
//!
//! let error = client.oneshot(1).await.unwrap_err();
//! assert!(Duration::from_millis(20) <= cause::<FailedFast>(error.as_ref()).unwrap().unready);
//! # }
//! ```
//!
//! # Configured
//! The time is the only setting. A good value is about ten times what a reconnect takes; linkerd
//! uses three seconds. It should be less than the balancer's `max_wait`, since otherwise the
//! balancer refuses first.
//!
//! # What it costs
//! One atomic load while the service is ready. A caller that waits sets a timer, which its clone
//! allocates.
//!
//! # The tower contract
//! It is ready when the service below is, or when calls fail at once. Clones share what is known.
//! An error of the `poll_ready` of the service below is passed on.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{BoxError, error::FailedFast, time::Timestamp};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::clock;

/// Fails calls at once while the service below is not ready. See the [module docs](self).
#[derive(Clone, Copy, Debug)]
pub struct FailFastLayer {
    after: Duration,
}

impl FailFastLayer {
    /// Makes calls fail once the service has not been ready for `after`.
    ///
    /// Zero makes them fail whenever it is not ready at the moment.
    #[must_use]
    pub const fn new(after: Duration) -> Self {
        Self { after }
    }
}

impl<S> Layer<S> for FailFastLayer {
    type Service = FailFast<S>;

    fn layer(&self, inner: S) -> FailFast<S> {
        let (since, asked) = (AtomicU64::new(READY), AtomicU64::new(0));
        let known = Known { since, asked, client: Client::current() };
        FailFast { inner, after: self.after, known: Arc::new(known), timer: None, failing: None }
    }
}

/// Fails calls at once while the service below is not ready. See the [module docs](self).
pub struct FailFast<S> {
    inner: S,
    after: Duration,
    known: Arc<Known>,
    /// Set while this clone waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// The next call fails: the service below was not ready.
    failing: Option<FailedFast>,
}

/// What the clones share.
struct Known {
    /// Since when the service is not ready.
    since: AtomicU64,
    /// When it was last found not ready.
    asked: AtomicU64,
    client: Client,
}

/// How late a caller that waits may ask again: its timer may fire a little late.
const MAX_TIMER_LATENESS: Duration = Duration::from_millis(20);

/// No time: the service is ready.
const READY: u64 = 0;

impl Known {
    #[inline]
    fn is_ready(&self) {
        if self.since.load(Ordering::Relaxed) != READY {
            self.since.store(READY, Ordering::Relaxed);
        }
    }

    /// For how long it has not been ready, as far as callers have asked.
    #[cold]
    fn is_not_ready(&self, now: Timestamp, after: Duration) -> Duration {
        let asked = self.asked.swap(now.as_nanos(), Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let pause = now.since(Timestamp::from_nanos(asked));
        let max_pause = after.saturating_mul(2).saturating_add(MAX_TIMER_LATENESS);
        let is_known = since != READY && pause <= max_pause;
        if is_known {
            return now.since(Timestamp::from_nanos(since));
        }
        self.since.store(now.as_nanos().max(1), Ordering::Relaxed);
        Duration::ZERO
    }
}

impl<S, R> Service<R> for FailFast<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = FailFastFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.failing = None;
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.known.is_ready();
                self.timer = None;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => {
                self.timer = None;
                return Poll::Ready(Err(error.into()));
            }
            Poll::Pending => {}
        }
        loop {
            let unready = self.known.is_not_ready(clock::now(), self.after);
            if self.after <= unready {
                self.timer = None;
                self.failing = Some(FailedFast::new(unready));
                return Poll::Ready(Ok(()));
            }
            let left = self.after - unready;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(left)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.failing.take() {
            Some(failed) => {
                let client = &self.known.client;
                evenkeel_metrics::count_fail_fast_refusal(client);
                let unready = failed.unready;
                tracing::debug!(target: "evenkeel::fail_fast", client = client.name(), ?unready, "call failed at once");
                FailFastFuture { future: None, failed }
            }
            None => {
                let failed = FailedFast::new(Duration::ZERO);
                FailFastFuture { future: Some(self.inner.call(request)), failed }
            }
        }
    }
}

impl<S: Clone> Clone for FailFast<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            after: self.after,
            known: self.known.clone(),
            // A clone of a service is not ready because its original is.
            timer: None,
            failing: None,
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for FailFast<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailFast")
            .field("inner", &self.inner)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of the service below, or a refusal. See the [module docs](self).
    pub struct FailFastFuture<F> {
        // `None` where the call failed at once.
        #[pin]
        future: Option<F>,
        failed: FailedFast,
    }
}

impl<F, T, E> Future for FailFastFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.as_pin_mut() {
            Some(future) => future.poll(cx).map_err(Into::into),
            None => Poll::Ready(Err((*this.failed).into())),
        }
    }
}

impl<F> fmt::Debug for FailFastFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailFastFuture").finish_non_exhaustive()
    }
}
