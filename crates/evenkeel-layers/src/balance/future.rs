//! The way of one request: picked, perhaps waiting, called.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{BoxError, attempt::Attempt, traffic::Traffic};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    select::{Candidate, Selected, Wish, report_broken, select},
    shared::Slot,
};

pin_project! {
    /// The response of the endpoint that was chosen. See the [module docs](super).
    pub struct BalanceFuture<S, X, R>
    where
        S: Service<R>,
    {
        traffic: X,
        request: Option<R>,
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, F> {
        /// A node is chosen and counts the request in flight.
        Picked { attempt: Option<Attempt<Slot<S>>> },
        /// Its service was not ready, or there was no node.
        Selecting { selecting: Pin<Box<dyn Future<Output = Result<Selected<S>, BoxError>> + Send>> },
        /// The request is with the endpoint.
        Called { #[pin] future: F, attempt: Option<Attempt> },
        /// The request was refused, or has ended.
        Done,
    }
}

impl<S: Service<R>, X, R> BalanceFuture<S, X, R> {
    pub(super) fn picked(request: R, traffic: X, attempt: Attempt<Slot<S>>) -> Self {
        let state = State::Picked { attempt: Some(attempt) };
        Self { traffic, request: Some(request), state }
    }

    pub(super) fn selecting(
        request: R,
        traffic: X,
        selecting: impl Future<Output = Result<Selected<S>, BoxError>> + Send + 'static,
    ) -> Self {
        let state = State::Selecting { selecting: Box::pin(selecting) };
        Self { traffic, request: Some(request), state }
    }
}

impl<S, X, R> Future for BalanceFuture<S, X, R>
where
    S: Service<R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Output = Result<X::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProject::Picked { attempt } => {
                    let attempt = attempt.take().expect("left behind once polled");
                    let request = this.request.as_ref().expect("kept until it is called");
                    match ready_service::<S, R>(&attempt, cx) {
                        Ok(Some(service)) => called(service, this.request, attempt),
                        Ok(None) => {
                            let hints = this.traffic.hints(request);
                            let candidate = Some(Candidate::new(attempt.holder().clone()));
                            selecting_state::<S, R>(&attempt, Wish::new(&hints), candidate)
                        }
                        Err(_) => {
                            report_broken(attempt.holder());
                            let hints = this.traffic.hints(request);
                            selecting_state::<S, R>(&attempt, Wish::new(&hints), None)
                        }
                    }
                }
                StateProject::Selecting { selecting } => {
                    match ready!(selecting.as_mut().poll(cx)) {
                        Ok((service, attempt)) => called(service, this.request, attempt),
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                StateProject::Called { future, attempt } => {
                    let Poll::Ready(result) = future.poll(cx) else {
                        attempt.as_mut().expect("kept until it ends").waits();
                        return Poll::Pending;
                    };
                    let attempt = attempt.take().expect("kept until it ends");
                    // What the service's future holds is let go before the caller goes on.
                    this.state.set(State::Done);
                    return Poll::Ready(this.traffic.finish(attempt, result).map_err(Into::into));
                }
                StateProject::Done => panic!("a future must not be polled after it has ended"),
            };
            this.state.set(next);
        }
    }
}

/// The service of a picked node if it is ready, `None` if it is not or its node has closed meanwhile.
fn ready_service<S, R>(
    attempt: &Attempt<Slot<S>>,
    cx: &mut Context<'_>,
) -> Result<Option<S>, BoxError>
where
    S: Service<R> + Clone + Send + Sync,
    S::Error: Into<BoxError>,
{
    let slot = attempt.holder();
    if !slot.node.is_open() {
        return Ok(None);
    }
    let mut service = slot.service.clone();
    match service.poll_ready(cx) {
        Poll::Ready(Ok(())) => Ok(Some(service)),
        Poll::Ready(Err(error)) => Err(error.into()),
        Poll::Pending => Ok(None),
    }
}

fn called<S, R>(
    mut service: S,
    request: &mut Option<R>,
    attempt: Attempt<Slot<S>>,
) -> State<S, S::Future>
where
    S: Service<R> + Send + Sync + 'static,
{
    let request = request.take().expect("called once");
    State::Called { future: service.call(request), attempt: Some(attempt.erase()) }
}

fn selecting_state<S, R>(
    attempt: &Attempt<Slot<S>>,
    wish: Wish,
    candidate: Option<Candidate<S>>,
) -> State<S, S::Future>
where
    S: Service<R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
{
    let shared = attempt.holder().shared.clone();
    State::Selecting { selecting: Box::pin(select(shared, poll_ready::<S, R>, wish, candidate)) }
}

pub(super) fn poll_ready<S, R>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
{
    service.poll_ready(cx).map_err(Into::into)
}

impl<S: Service<R>, X, R> fmt::Debug for BalanceFuture<S, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceFuture").finish_non_exhaustive()
    }
}
