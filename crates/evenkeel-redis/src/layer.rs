//! The tower layer of a shared quota.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    BoxError,
    error::RateLimited,
    quota::{Disclose, Everyone, QuotaState, Silent, Spender},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::quota::{Asking, RedisQuota, Spending};

/// Lets requests through as long as a [`RedisQuota`] allows them. See the [crate docs](crate).
#[derive(Clone, Debug)]
pub struct QuotaLayer<K = Everyone, D = Silent> {
    quota: RedisQuota,
    spender: K,
    disclose: D,
}

impl QuotaLayer {
    /// A layer in which all requests spend the same quota.
    #[must_use]
    pub fn new(quota: RedisQuota) -> Self {
        Self { quota, spender: Everyone, disclose: Silent }
    }
}

impl<K, D> QuotaLayer<K, D> {
    /// Gives each key a quota of its own. Default: all requests spend the same.
    #[must_use]
    pub fn keyed<L>(self, spender: L) -> QuotaLayer<L, D> {
        QuotaLayer { quota: self.quota, spender, disclose: self.disclose }
    }

    /// Sets what tells callers about their quota in the response. Default: nothing.
    #[must_use]
    pub fn disclose<E>(self, disclose: E) -> QuotaLayer<K, E> {
        QuotaLayer { quota: self.quota, spender: self.spender, disclose }
    }
}

impl<S, K: Clone, D: Clone> Layer<S> for QuotaLayer<K, D> {
    type Service = Quota<S, K, D>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { quota, spender, disclose } = self.clone();
        Quota { inner, quota, spender, disclose }
    }
}

/// Lets requests through as long as a [`RedisQuota`] allows them. See the [crate docs](crate).
#[derive(Clone, Debug)]
pub struct Quota<S, K, D> {
    inner: S,
    quota: RedisQuota,
    spender: K,
    disclose: D,
}

impl<S, K, D, R> Service<R> for Quota<S, K, D>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    K: Spender<R>,
    D: Disclose<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = QuotaFuture<S, D, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let disclose = self.disclose.clone();
        let key = |key: Option<&[u8]>| key.map(|key| self.quota.start_spending(key));
        let (quota, state) = match self.spender.with_key(&request, key) {
            None => (None, State::Called { future: self.inner.call(request) }),
            Some(Spending::Known(Ok(quota))) => {
                (Some(quota), State::Called { future: self.inner.call(request) })
            }
            Some(Spending::Known(Err(limited))) => {
                // A service that was made ready but is not called would keep what it holds for
                // the call.
                self.inner = self.inner.clone();
                (None, State::Refused { limited })
            }
            Some(Spending::Asking(asking)) => {
                self.inner = self.inner.clone();
                let service = self.inner.clone();
                (None, State::Asking { asking, service, request: Some(request) })
            }
        };
        QuotaFuture { disclose, quota, state }
    }
}

pin_project! {
    /// The response of the inner service, or a refusal. See the [crate docs](crate).
    pub struct QuotaFuture<S, D, R>
    where
        S: Service<R>,
    {
        disclose: D,
        // What was left when the request went through; `None` where there is no limit.
        quota: Option<QuotaState>,
        #[pin]
        state: State<S, S::Future, R>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, F, R> {
        Refused { limited: RateLimited },
        // Waits for the answer of Redis.
        Asking { asking: Asking, service: S, request: Option<R> },
        // Waits for the inner service to become ready.
        Passed { service: S, request: Option<R> },
        Called { #[pin] future: F },
    }
}

impl<S, D, R> Future for QuotaFuture<S, D, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    D: Disclose<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProject::Refused { limited } => return Poll::Ready(Err((*limited).into())),
                StateProject::Asking { asking, service, request } => {
                    *this.quota = Some(ready!(asking.as_mut().poll(cx))?);
                    let (service, request) = (service.clone(), request.take());
                    this.state.set(State::Passed { service, request });
                }
                StateProject::Passed { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let future = service.call(request.take().expect("called once"));
                    this.state.set(State::Called { future });
                }
                StateProject::Called { future } => {
                    let mut result = ready!(future.poll(cx)).map_err(Into::into);
                    if let (Ok(response), Some(quota)) = (&mut result, this.quota) {
                        this.disclose.disclose(quota, response);
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<S: Service<R>, D, R> fmt::Debug for QuotaFuture<S, D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaFuture").finish_non_exhaustive()
    }
}
