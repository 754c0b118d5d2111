//! What stands at the end of every pipeline: services that cost nothing, so that the rest shows.

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

/// Answers when it is polled for the second time, as everything does that goes over a network.
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

/// The response of [`Yielding`].
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

/// The endpoint of this number, the same for everybody.
///
/// Weights are 1, 2 and 3: with equal ones the weighted policies would do less.
pub(crate) fn endpoint(number: usize) -> Endpoint {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    Endpoint::new(SocketAddr::from(([10, high, middle, low], 80))).weight(1 + number as u32 % 3)
}

/// So many endpoints.
pub(crate) fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(endpoint).collect()
}
