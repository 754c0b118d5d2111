//! Sends a session to the endpoint in its cookie, and sets the cookie if it went elsewhere.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use evenkeel_core::endpoint::Address;
use http::{Request, Response, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::settings::Settings;
use crate::hints::{Prefer, ServedBy};

/// Keeps each session on its endpoint. See [`StickyLayer`](super::StickyLayer).
#[derive(Clone, Debug)]
pub struct Sticky<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Sticky<S> {
    pub(super) fn new(inner: S, settings: Settings) -> Self {
        Self { inner, settings: Arc::new(settings) }
    }
}

impl<S, B, R> Service<Request<B>> for Sticky<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = StickyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let named: Vec<Address> = self.settings.endpoints(request.headers()).collect();
        if !named.is_empty() && request.extensions().get::<Prefer>().is_none() {
            request.extensions_mut().insert(Prefer(named.clone()));
        }
        StickyFuture { future: self.inner.call(request), settings: self.settings.clone(), named }
    }
}

pin_project! {
    /// The future of [`Sticky`].
    pub struct StickyFuture<F> {
        #[pin]
        future: F,
        settings: Arc<Settings>,
        named: Vec<Address>,
    }
}

impl<F, R, E> Future for StickyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let served_by = response.extensions().get::<ServedBy>().map(ServedBy::address);
        if let Some(address) = served_by
            && !this.named.contains(address)
            && !response.status().is_server_error()
        {
            let line = this.settings.set_cookie(address);
            response.headers_mut().append(header::SET_COOKIE, line);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for StickyFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyFuture").finish_non_exhaustive()
    }
}
