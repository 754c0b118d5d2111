//! What the layer makes: a service where its inner is one, and a `Connect` where its inner is one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    error::RateLimited,
    node::Node,
    quota::{Disclose, Everyone, QuotaState, Spender},
};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{RateLimiter, limiter::log_refusal, monitor::Monitor, rules::Rules, wait::Waiting};

/// Lets through what its limiter allows. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct RateLimit<T, K, D> {
    inner: T,
    limiter: RateLimiter,
    spender: K,
    disclose: D,
    rules: Rules,
}

impl<T, K, D> RateLimit<T, K, D> {
    pub(super) fn new(
        inner: T,
        limiter: RateLimiter,
        spender: K,
        disclose: D,
        rules: Rules,
    ) -> Self {
        Self { inner, limiter, spender, disclose, rules }
    }
}

impl<C: Connect, D> Connect for RateLimit<C, Everyone, D> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        Monitor::watch(&self.limiter, self.rules.max_throttle, node);
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<S, K, D, R> Service<R> for RateLimit<S, K, D>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    K: Spender<R>,
    D: Disclose<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = RateLimitFuture<S, D, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let disclose = self.disclose.clone();
        let key = self.spender.with_key(&request, |key| key.map(|key| self.limiter.hash(key)));
        let Some(key) = key else {
            let state = State::Called { future: self.inner.call(request) };
            return RateLimitFuture { disclose, quota: None, state };
        };
        match self.limiter.check_key(key) {
            Ok(quota) => {
                let state = State::Called { future: self.inner.call(request) };
                RateLimitFuture { disclose, quota: Some(quota), state }
            }
            Err(limited) => {
                // A service that was made ready and is not called would keep what it holds for the
                // call.
                self.inner = self.inner.clone();
                let state = if limited.retry_after <= self.rules.max_wait {
                    let service = self.inner.clone();
                    let limiter = self.limiter.clone();
                    let waiting =
                        Waiting::new(service, request, limiter, key, &self.rules, &limited);
                    State::Waiting { waiting: Box::pin(waiting) }
                } else {
                    log_refusal(&self.rules.client, self.limiter.scope(), &limited);
                    State::Refused { limited }
                };
                RateLimitFuture { disclose, quota: None, state }
            }
        }
    }
}

pin_project! {
    /// The response of the inner service, or a refusal. See the [module docs](super).
    pub struct RateLimitFuture<S, D, R>
    where
        S: Service<R>,
    {
        disclose: D,
        // What was left when the request went through; `None` where it is not limited.
        quota: Option<QuotaState>,
        #[pin]
        state: State<S, S::Future, R>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, F, R> {
        Refused { limited: RateLimited },
        Waiting { waiting: Pin<Box<Waiting<S, R>>> },
        Called { #[pin] future: F },
    }
}

impl<S, D, R> Future for RateLimitFuture<S, D, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    D: Disclose<S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProject::Refused { limited } => return Poll::Ready(Err((*limited).into())),
                StateProject::Waiting { waiting } => {
                    let (quota, future) = ready!(waiting.as_mut().poll_call(cx))?;
                    *this.quota = Some(quota);
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

impl<S: Service<R>, D, R> fmt::Debug for RateLimitFuture<S, D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitFuture").finish_non_exhaustive()
    }
}
