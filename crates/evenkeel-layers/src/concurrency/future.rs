//! The way of one call: admitted, waiting to be admitted, or refused.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{
    BoxError, attempt::Attempt, limit::Priority, time::Timestamp, traffic::Traffic,
};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::{
    monitor::{Entry, Monitor},
    queue::{Place, QueueExit},
};
use crate::{
    alone::{Alone, Doorkeeper},
    attempt_end::poll_end,
    clock,
};

pin_project! {
    /// The response of the inner service, or a refusal. See the [module docs](super).
    pub struct ConcurrencyLimitFuture<S, X, R>
    where
        S: Service<R>,
    {
        traffic: X,
        // Holds the permit until it ends or is dropped.
        attempt: Option<Attempt<Alone<Monitor>>>,
        #[pin]
        state: State<S, R, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, R, F> {
        Refused { error: Option<BoxError> },
        // Boxed: most calls are admitted at once and need no room for it.
        Waits { turn: Pin<Box<Turn<S, R>>> },
        Called { #[pin] future: F },
    }
}

/// Calls `service`, refuses, or sets a copy of it aside to wait with the request.
pub(crate) fn begin<S, X, R>(
    service: &mut S,
    alone: &Arc<Alone<Monitor>>,
    traffic: X,
    request: R,
    priority: Priority,
) -> ConcurrencyLimitFuture<S, X, R>
where
    S: Service<R> + Clone,
{
    let monitor = &*alone.monitor;
    let entry = monitor.enter(priority);
    if entry == Entry::Admitted {
        // Holds the permit from here on.
        let attempt = Attempt::new(alone.clone());
        if let Some(waiting) = &monitor.waiting {
            waiting.record_start(Duration::ZERO);
        }
        let state = State::Called { future: service.call(request) };
        return ConcurrencyLimitFuture { traffic, attempt: Some(attempt), state };
    }
    let state = if entry == Entry::Refused {
        // A service that was made ready and is not called would keep what it holds for the call.
        *service = service.clone();
        State::Refused { error: Some(monitor.refusal(priority, Duration::ZERO)) }
    } else {
        // The service that was made ready goes with the request.
        let clone = service.clone();
        let service = std::mem::replace(service, clone);
        let turn = Box::pin(Turn::new(service, request, alone.clone(), priority));
        State::Waits { turn }
    };
    ConcurrencyLimitFuture { traffic, attempt: None, state }
}

impl<S, X, R> Future for ConcurrencyLimitFuture<S, X, R>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    X: Traffic<R, S::Response, S::Error>,
{
    type Output = Result<X::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProject::Refused { error } => {
                    let error = error.take().expect("a future is not polled after its end");
                    return Poll::Ready(Err(error));
                }
                StateProject::Waits { turn } => {
                    let (mut service, request, attempt) = ready!(turn.as_mut().poll(cx))?;
                    *this.attempt = Some(attempt);
                    let future = service.call(request);
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

impl<S: Service<R>, X, R> fmt::Debug for ConcurrencyLimitFuture<S, X, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A request that waits for a permit.
    struct Turn<S, R> {
        // Taken when the call is admitted.
        call: Option<(S, R)>,
        alone: Arc<Alone<Monitor>>,
        priority: Priority,
        arrived: Timestamp,
        // Taken at the first poll: a call that is not polled must not keep others waiting.
        place: Option<Place>,
        #[pin]
        timer: Sleep,
    }

    impl<S, R> PinnedDrop for Turn<S, R> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            leave(this.place, &this.alone.monitor);
        }
    }
}

type Admitted<S, R> = (S, R, Attempt<Alone<Monitor>>);

impl<S, R> Turn<S, R> {
    fn new(service: S, request: R, alone: Arc<Alone<Monitor>>, priority: Priority) -> Self {
        let waiting = alone.monitor.waiting.as_ref().expect("only who may wait gets here");
        let timer = sleep(waiting.max_wait());
        let arrived = clock::now();
        Self { call: Some((service, request)), alone, priority, arrived, place: None, timer }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Admitted<S, R>, BoxError>> {
        let this = self.project();
        let monitor = &*this.alone.monitor;
        let waiting = monitor.waiting.as_ref().expect("only who may wait gets here");
        let waited = || clock::now().since(*this.arrived);
        if this.place.is_none() {
            *this.place = waiting.queue.enter(*this.priority, cx.waker());
            // A permit may have come back before this call was in the queue.
            waiting.queue.admit(&monitor.permits);
        }
        let verdict = match this.place.as_ref().map(|place| place.poll(cx)) {
            None => Poll::Ready(QueueExit::Evicted),
            Some(verdict) => verdict,
        };
        match verdict {
            Poll::Ready(QueueExit::Admitted) => {
                // Holds the permit from here on.
                let attempt = Attempt::new(this.alone.clone());
                _ = this.place.take().map(Place::leave);
                waiting.record_start(waited());
                let (service, request) = this.call.take().expect("let in once");
                return Poll::Ready(Ok((service, request, attempt)));
            }
            Poll::Ready(QueueExit::Evicted) => {
                let refusal = monitor.refusal(*this.priority, waited());
                leave(this.place, monitor);
                return Poll::Ready(Err(refusal));
            }
            Poll::Pending => {}
        }
        ready!(this.timer.poll(cx));
        let waited = waited();
        waiting.record_refusal(waited);
        let refusal = monitor.refusal(*this.priority, waited);
        leave(this.place, monitor);
        Poll::Ready(Err(refusal))
    }
}

/// Gives up a place. Passes on a permit that was given to it meanwhile.
fn leave(place: &mut Option<Place>, monitor: &Monitor) {
    if place.take().and_then(Place::leave) == Some(QueueExit::Admitted) {
        monitor.exit();
    }
}
