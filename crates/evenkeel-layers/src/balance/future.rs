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
        // Taken when the endpoint is called.
        request: Option<R>,
        // Counts the request in flight, from the pick until the end.
        attempt: Option<Attempt<Slot<S>>>,
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, F> {
        // A node is picked.
        Picked,
        // Its service was not ready, or there was no node.
        Selecting { selecting: Pin<Box<dyn Future<Output = Result<Selected<S>, BoxError>> + Send>> },
        // The request is with the endpoint.
        Called { #[pin] future: F },
    }
}

impl<S: Service<R>, X, R> BalanceFuture<S, X, R> {
    #[inline]
    pub(super) fn picked(request: R, traffic: X, attempt: Attempt<Slot<S>>) -> Self {
        Self { traffic, request: Some(request), attempt: Some(attempt), state: State::Picked }
    }

    pub(super) fn selecting(
        request: R,
        traffic: X,
        selecting: impl Future<Output = Result<Selected<S>, BoxError>> + Send + 'static,
    ) -> Self {
        let state = State::Selecting { selecting: Box::pin(selecting) };
        Self { traffic, request: Some(request), attempt: None, state }
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
        // Each state is set where it arises: moved there from one place a request costs 7 ns more.
        loop {
            match this.state.as_mut().project() {
                StateProject::Picked => {
                    let attempt = this.attempt.as_ref().expect("a picked node is attempted");
                    match ready_service::<S, R>(attempt, cx) {
                        Ok(Some(mut service)) => {
                            let request = this.request.take().expect("called once");
                            this.state.set(State::Called { future: service.call(request) });
                        }
                        unready => {
                            let request = this.request.as_ref().expect("not called yet");
                            let wish = Wish::new(&this.traffic.hints(request));
                            let attempt = this.attempt.take().expect("a picked node is attempted");
                            let another = select_another::<S, R>(&attempt, wish, unready.is_err());
                            this.state.set(another);
                        }
                    }
                }
                StateProject::Selecting { selecting } => {
                    let (mut service, attempt) = ready!(selecting.as_mut().poll(cx))?;
                    *this.attempt = Some(attempt);
                    let request = this.request.take().expect("called once");
                    this.state.set(State::Called { future: service.call(request) });
                }
                StateProject::Called { future } => {
                    let Poll::Ready(result) = future.poll(cx) else {
                        this.attempt.as_mut().expect("under way").waits();
                        return Poll::Pending;
                    };
                    let attempt =
                        this.attempt.take().expect("a future is not polled after its end");
                    let result = this.traffic.finish(attempt.erase(), result);
                    return Poll::Ready(result.map_err(Into::into));
                }
            }
        }
    }
}

/// The service of a picked node if it is ready, `None` if it is not or its node has closed meanwhile.
#[inline]
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

/// Another service is looked for; the one that was picked stays a candidate unless it failed.
#[cold]
fn select_another<S, R>(attempt: &Attempt<Slot<S>>, wish: Wish, failed: bool) -> State<S, S::Future>
where
    S: Service<R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
{
    let slot = attempt.holder();
    let candidate = if failed {
        report_broken(slot);
        None
    } else {
        Some(Candidate::new(slot.clone()))
    };
    let selecting = select(slot.shared.clone(), poll_ready::<S, R>, wish, candidate);
    State::Selecting { selecting: Box::pin(selecting) }
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
