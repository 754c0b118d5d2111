//! Retries as a service.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{
    BoxError,
    retry::{Replay, Rules},
};
use tower_service::Service;

use super::{RetryFuture, settings::Shared};

/// Makes another attempt if one failed. See the [module docs](super).
#[derive(Debug)]
pub struct Retry<S, P> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<P>>,
}

impl<S: Clone, P> Clone for Retry<S, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S, P, Req> Service<Req> for Retry<S, P>
where
    P: Rules<Req, <S as Service<<P as Replay<Req>>::Request>>::Response>,
    S: Service<<P as Replay<Req>>::Request> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = P::Response;
    type Error = BoxError;
    type Future = RetryFuture<S, P, Req, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The ready service is called. Its clone has to become ready first.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let (call, request) = self.shared.settings.rules.begin(request);
        let future = ready.call(request);
        RetryFuture::new(ready, self.shared.clone(), call, future)
    }
}
