//! The way of one request: pick, possibly wait, call.

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
    select::{Candidate, First, Selected, Wish, admit, report_broken, select},
    shared::Slot,
};
use crate::attempt_end::poll_end;

pin_project! {
    /// The response of the chosen endpoint. See the [module docs](super).
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
        // Each state is set where it arises. If the states were built in one place and moved from
        // there, they would be read back in wider words than they were written, which stalls the
        // processor.
        loop {
            match this.state.as_mut().project() {
                StateProject::Picked => {
                    let attempt = this.attempt.as_mut().expect("a picked node is attempted");
                    match ready_service::<S, R>(attempt, cx) {
                        Ok(Some(service)) => {
                            let future = called(service, this.request, this.traffic, attempt);
                            this.state.set(State::Called { future });
                        }
                        unready => {
                            let error = unready.err();
                            let request = this.request.as_ref().expect("not called yet");
                            let wish = Wish::new(&this.traffic.hints(request));
                            let attempt = this.attempt.take().expect("a picked node is attempted");
                            let another = select_another::<S, R>(&attempt, wish, error);
                            this.state.set(another);
                        }
                    }
                }
                StateProject::Selecting { selecting } => {
                    let (service, attempt) = ready!(selecting.as_mut().poll(cx))?;
                    let attempt = this.attempt.insert(attempt);
                    let future = called(service, this.request, this.traffic, attempt);
                    this.state.set(State::Called { future });
                }
                StateProject::Called { future } => {
                    return poll_end(future, this.attempt, cx, |attempt, result| {
                        this.traffic.finish(attempt, result).map_err(Into::into)
                    });
                }
            }
        }
    }
}

/// The service of a picked node. `None` if it is not ready or its node takes no requests now.
#[inline]
fn ready_service<S, R>(
    attempt: &mut Attempt<Slot<S>>,
    cx: &mut Context<'_>,
) -> Result<Option<S>, BoxError>
where
    S: Service<R> + Clone + Send + Sync,
    S::Error: Into<BoxError>,
{
    let slot = attempt.holder();
    if !slot.shared.is_available(&slot.node) {
        return Ok(None);
    }
    let mut service = slot.service.clone();
    match service.poll_ready(cx) {
        Poll::Ready(Ok(())) => Ok(admit(attempt).then_some(service)),
        Poll::Ready(Err(error)) => Err(error.into()),
        Poll::Pending => Ok(None),
    }
}

/// Hands the request over. The call remembers where it went.
#[inline]
fn called<S, X, R>(
    mut service: S,
    request: &mut Option<R>,
    traffic: &X,
    attempt: &mut Attempt<Slot<S>>,
) -> S::Future
where
    S: Service<R>,
    X: Traffic<R, S::Response, S::Error>,
{
    let request = request.take().expect("called once");
    if traffic.is_untimed(&request) {
        attempt.set_untimed();
    }
    if let Some(tried) = traffic.tried(&request) {
        tried.add(attempt.node().id());
    }
    service.call(request)
}

/// Looks for another service. The picked one stays a candidate unless it failed.
#[cold]
fn select_another<S, R>(
    attempt: &Attempt<Slot<S>>,
    wish: Wish,
    error: Option<BoxError>,
) -> State<S, S::Future>
where
    S: Service<R> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
{
    let slot = attempt.holder();
    let reason = if error.is_some() { "failed" } else { "not_ready" };
    let client = &slot.shared.client;
    evenkeel_metrics::count_repick(client, reason);
    tracing::debug!(
        target: "evenkeel::balance",
        client = client.name(),
        endpoint = %slot.node.address(),
        reason,
        error = error.as_ref().map(tracing::field::display),
        "another endpoint is looked for"
    );
    let first = match error {
        Some(error) => {
            report_broken(slot);
            First::Failed(error)
        }
        None => First::Waits(Candidate::new(slot.clone())),
    };
    let selecting = select(slot.shared.clone(), poll_ready::<S, R>, wish, first);
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
