//! The innermost services of every pipeline. They cost nothing, so that only the rest is measured.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::endpoint::Endpoint;
use tower::Service;

/// A service that stands for an endpoint.
pub(crate) trait Leaf:
    Service<u64, Response = u64, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Leaf for S where
    S: Service<u64, Response = u64, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Answers at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nothing;

impl Service<u64> for Nothing {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request + 1))
    }
}

/// Answers on the second poll, as any service over a network does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yielding;

impl Service<u64> for Yielding {
    type Response = u64;
    type Error = Infallible;
    type Future = YieldingFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> YieldingFuture {
        YieldingFuture { response: request + 1, has_yielded: false }
    }
}

/// The future of [`Yielding`].
#[derive(Debug)]
pub(crate) struct YieldingFuture {
    response: u64,
    has_yielded: bool,
}

impl Future for YieldingFuture {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.has_yielded {
            return Poll::Ready(Ok(self.response));
        }
        self.has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The endpoint of this number, the same for all contenders.
///
/// Weights are 1, 2 and 3: with equal weights the weighted policies would do less work.
pub(crate) fn endpoint(number: usize) -> Endpoint {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    Endpoint::new(SocketAddr::from(([10, high, middle, low], 80))).weight(1 + number as u32 % 3)
}

/// This many endpoints.
pub(crate) fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(endpoint).collect()
}
