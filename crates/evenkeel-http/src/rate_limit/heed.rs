//! Keeps to the quota that a server announces.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::ServerQuota;
use crate::delay;

/// Passes the quota that a server announces to a limiter, so that a client slows down before it is refused.
///
/// It stands below that limiter. It reads a [`ServerQuota`] from each response, at the cost of two header
/// look-ups. A response without a quota changes nothing.
///
/// ```
/// use evenkeel::core::error::{RateLimited, cause};
/// use evenkeel::http::HeedQuotaLayer;
/// use evenkeel::rate_limit::RateLimitLayer;
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let limit = RateLimitLayer::per_second(1_000);
/// let limiter = limit.limiter();
/// let client = ServiceBuilder::new()
///     .layer(limit)
///     .layer(HeedQuotaLayer::new(move |quota| limiter.heed(quota.remaining, quota.reset)))
///     .service(service_fn(|_: Request<()>| async {
///         let response = Response::builder().header("ratelimit", "\"default\";r=0;t=60");
///         Ok::<_, BoxError>(response.body(()).expect("a response"))
///     }));
///
/// client.clone().oneshot(Request::new(())).await.expect("no quota is known yet");
/// let refused = client.oneshot(Request::new(())).await.unwrap_err();
/// assert_eq!(cause::<RateLimited>(refused.as_ref()).unwrap().retry_after.as_secs_f64().ceil(), 60.0);
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct HeedQuotaLayer<F> {
    told: F,
    max_reset: Duration,
}

impl<F: Fn(ServerQuota)> HeedQuotaLayer<F> {
    /// Calls `told` with what each response says. It runs on the request's path and must not block.
    #[must_use]
    pub fn new(told: F) -> Self {
        Self { told, max_reset: delay::MAX_DELAY }
    }

    /// Sets the longest time for which the quota of a response is believed. Default: 5 minutes.
    ///
    /// A quota for a longer time is scaled to this one, so the pace stays the same. A quota that is used up
    /// is tried again after this time. Zero lets everything through. With days, one wrong header blocks a
    /// client for days.
    #[must_use]
    pub fn max_reset(mut self, max_reset: Duration) -> Self {
        self.max_reset = max_reset;
        self
    }
}

impl<F: Clone, S> Layer<S> for HeedQuotaLayer<F> {
    type Service = HeedQuota<S, F>;

    fn layer(&self, inner: S) -> HeedQuota<S, F> {
        HeedQuota { inner, told: self.told.clone(), max_reset: self.max_reset }
    }
}

impl<F> fmt::Debug for HeedQuotaLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeedQuotaLayer").finish_non_exhaustive()
    }
}

/// Passes the quota that a server announces to a limiter. See [`HeedQuotaLayer`].
#[derive(Clone)]
pub struct HeedQuota<S, F> {
    inner: S,
    told: F,
    max_reset: Duration,
}

impl<S, F, B, R> Service<Request<B>> for HeedQuota<S, F>
where
    S: Service<Request<B>, Response = Response<R>>,
    F: Fn(ServerQuota) + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HeedQuotaFuture<S::Future, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (told, max_reset) = (self.told.clone(), self.max_reset);
        HeedQuotaFuture { future: self.inner.call(request), told, max_reset }
    }
}

impl<S, F> fmt::Debug for HeedQuota<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeedQuota").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`HeedQuota`].
    pub struct HeedQuotaFuture<T, F> {
        #[pin]
        future: T,
        told: F,
        max_reset: Duration,
    }
}

impl<T, F, R, E> Future for HeedQuotaFuture<T, F>
where
    T: Future<Output = Result<Response<R>, E>>,
    F: Fn(ServerQuota),
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        if let Some(quota) = ServerQuota::read(response.status(), response.headers()) {
            (this.told)(quota.within(*this.max_reset));
        }
        Poll::Ready(Ok(response))
    }
}

impl<T, F> fmt::Debug for HeedQuotaFuture<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeedQuotaFuture").finish_non_exhaustive()
    }
}
