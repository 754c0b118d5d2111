//! A request that waits for its turn.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::RateLimited,
    quota::QuotaState,
    rng::{Rng, Seeds},
};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{RateLimiter, keyed::KeyHash, limiter::log_refusal, rules::Rules};
use crate::clock;

pin_project! {
    /// A request that waits for its turn, and then for its service to be ready.
    pub(super) struct Waiting<S, R> {
        service: S,
        request: Option<R>,
        limiter: RateLimiter,
        key: Option<KeyHash>,
        client: Client,
        jitter: Duration,
        rng: Rng,
        // By this time it is sent or refused.
        until: Instant,
        #[pin]
        sleep: Sleep,
        // What was left when it was let through.
        quota: Option<QuotaState>,
    }
}

impl<S, R> Waiting<S, R> {
    /// Waits at least as long as `limited` says.
    pub(super) fn new(
        service: S,
        request: R,
        limiter: RateLimiter,
        key: Option<KeyHash>,
        rules: &Rules,
        limited: &RateLimited,
    ) -> Self {
        let until = clock::after(rules.max_wait);
        let mut rng = Seeds::rng(&rules.seeds);
        let sleep = sleep_until(wake(limited.retry_after, rules.jitter, until, &mut rng));
        Self {
            service,
            request: Some(request),
            limiter,
            key,
            client: rules.client.clone(),
            jitter: rules.jitter,
            rng,
            until,
            sleep,
            quota: None,
        }
    }

    /// Calls the service when this request's turn has come.
    pub(super) fn poll_call(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(QuotaState, S::Future), BoxError>>
    where
        S: Service<R>,
        S::Error: Into<BoxError>,
    {
        let mut this = self.project();
        let quota = loop {
            if let Some(quota) = *this.quota {
                break quota;
            }
            ready!(this.sleep.as_mut().poll(cx));
            match this.limiter.check_key(*this.key) {
                Ok(quota) => *this.quota = Some(quota),
                Err(limited) => {
                    // Other requests came first.
                    if *this.until < clock::after(limited.retry_after) {
                        log_refusal(this.client, this.limiter.scope(), &limited);
                        return Poll::Ready(Err(limited.into()));
                    }
                    let again = wake(limited.retry_after, *this.jitter, *this.until, this.rng);
                    this.sleep.as_mut().reset(again);
                }
            }
        };
        ready!(this.service.poll_ready(cx)).map_err(Into::into)?;
        let request = this.request.take().expect("called once");
        Poll::Ready(Ok((quota, this.service.call(request))))
    }
}

/// The time to wake: after `wait` and some jitter, but not after `until`.
fn wake(wait: Duration, jitter: Duration, until: Instant, rng: &mut Rng) -> Instant {
    clock::after(wait.saturating_add(jitter.mul_f64(rng.unit()))).min(until)
}
