//! Tells callers their quota.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    error::{RateLimited, SharedError, cause},
    quota::{Disclose, QuotaState},
};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::fields;

/// Tells callers their quota, in the headers of each response.
///
/// It stands above [`ErrorToResponseLayer`](crate::ErrorToResponseLayer), which turns a refusal into a 429
/// with `Retry-After`. That layer stands above the limit, which is set to [disclose](DiscloseQuota) what is
/// left. The headers are `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, from its
/// eighth version on). Times are in whole seconds, rounded up:
///
/// ```text
/// RateLimit-Policy: "default";q=10;w=10
/// RateLimit: "default";r=4;t=6
/// ```
///
/// ```
/// use std::convert::Infallible;
/// use evenkeel::http::{DiscloseQuota, ErrorToResponseLayer, RateLimitHeadersLayer};
/// use evenkeel::rate_limit::RateLimitLayer;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(RateLimitHeadersLayer::new())
///     .layer(ErrorToResponseLayer::new())
///     .layer(RateLimitLayer::per_second(1).disclose(DiscloseQuota))
///     .service(service_fn(|_: Request<()>| async {
///         Ok::<_, Infallible>(Response::new(String::new()))
///     }));
///
/// let allowed = service.clone().oneshot(Request::new(())).await.unwrap();
/// assert_eq!(allowed.headers()["ratelimit"], "\"default\";r=0;t=1");
///
/// let refused = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(refused.status(), 429);
/// assert_eq!(refused.headers()["retry-after"], "1");
/// assert_eq!(refused.headers()["ratelimit"], "\"default\";r=0;t=1");
/// # }
/// ```
///
/// It costs two headers and their values for each response. A response without a quota does not change.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitHeadersLayer {
    name: &'static str,
    has_three: bool,
}

impl RateLimitHeadersLayer {
    /// Reports a quota that is called `default`.
    #[must_use]
    pub fn new() -> Self {
        Self { name: "default", has_three: false }
    }

    /// Sets the name of the quota.
    ///
    /// # Panics
    /// If `name` has anything in it but letters, digits, `-`, `_` and `.`.
    #[must_use]
    pub fn name(mut self, name: &'static str) -> Self {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        assert!(name.bytes().all(is_plain), "a plain name, not {name:?}");
        self.name = name;
        self
    }

    /// Also writes `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`, as in the draft's
    /// third version, for callers that know only these. Default: off.
    #[must_use]
    pub fn three_headers(mut self) -> Self {
        self.has_three = true;
        self
    }
}

impl Default for RateLimitHeadersLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for RateLimitHeadersLayer {
    type Service = RateLimitHeaders<S>;

    fn layer(&self, inner: S) -> RateLimitHeaders<S> {
        RateLimitHeaders { inner, layer: *self }
    }
}

/// Tells callers their quota. See [`RateLimitHeadersLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitHeaders<S> {
    inner: S,
    layer: RateLimitHeadersLayer,
}

impl<S, B, R> Service<Request<B>> for RateLimitHeaders<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RateLimitHeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        RateLimitHeadersFuture { future: self.inner.call(request), layer: self.layer }
    }
}

pin_project! {
    /// The future of [`RateLimitHeaders`].
    pub struct RateLimitHeadersFuture<F> {
        #[pin]
        future: F,
        layer: RateLimitHeadersLayer,
    }
}

impl<F, R, E> Future for RateLimitHeadersFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(state) = state(&response) {
            fields::write(response.headers_mut(), this.layer.name, &state);
            if this.layer.has_three {
                fields::write_three(response.headers_mut(), &state);
            }
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for RateLimitHeadersFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitHeadersFuture").finish_non_exhaustive()
    }
}

fn state<R>(response: &Response<R>) -> Option<QuotaState> {
    let extensions = response.extensions();
    let refused = || {
        let limited = cause::<RateLimited>(extensions.get::<SharedError>()?.inner())?;
        Some(fields::exhausted(limited.rate, limited.retry_after))
    };
    extensions.get::<QuotaState>().copied().or_else(refused)
}

/// Puts what is left of a quota into the extensions of a response, for [`RateLimitHeadersLayer`].
///
/// If a request spends several quotas, it is the one with the least left.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiscloseQuota;

impl<R> Disclose<Response<R>> for DiscloseQuota {
    fn disclose(&self, state: &QuotaState, response: &mut Response<R>) {
        let known = response.extensions().get::<QuotaState>();
        if known.is_none_or(|known| state.remaining < known.remaining) {
            response.extensions_mut().insert(*state);
        }
    }
}
