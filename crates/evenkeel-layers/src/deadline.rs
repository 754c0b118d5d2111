//! One deadline for a call, whatever happens on the way.
//!
//! **Use it** at the top of a client's stack, above retries and hedges, so that what they do
//! together ends in time. **Use it** at the top of a server's stack, where it takes over the time
//! that the caller has left. **Not** to cut off a single attempt: that is
//! [`attempt_timeout`](crate::retry::RetryLayer::attempt_timeout).
//!
//! * After it, the call fails with [`DeadlineExceeded`], and what was under way is dropped. An
//!   endpoint that had half of the layer's time and did not answer has [failed](evenkeel_core::cut)
//!   by that. An error that comes at the deadline or later is not passed on, since it is how the
//!   end of the time looks from below. A response is passed on.
//! * If a request carries a deadline already, or its sender gave it less time, the earlier deadline
//!   applies. A [`CarryDeadline`] says how a request carries one: by default not at all.
//!   `HttpDeadline` of evenkeel-http does it for HTTP (an extension, `grpc-timeout` and a header).
//! * It covers the time until the stack below is ready: `poll_ready` never waits, the call does. So
//!   a call that finds no endpoint also ends at its deadline, or at an earlier one that the request
//!   carries. A layer that goes by readiness, such as `FailFastLayer` or tower's `LoadShed`,
//!   therefore belongs below this one.
//! * It runs until the response is there, not until its body has ended.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::core::{BoxError, error::{DeadlineExceeded, cause}};
//! use evenkeel::deadline::DeadlineLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let client = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_millis(20)))
//!     .service(service_fn(|_: ()| std::future::pending::<Result<(), BoxError>>()));
//!
//! let error = client.oneshot(()).await.unwrap_err();
//! assert!(cause::<DeadlineExceeded>(error.as_ref()).is_some());
//! # }
//! ```
//!
//! # Configured
//! The deadline and how it is carried are the only settings:
//! `DeadlineLayer::new(after).carry(HttpDeadline)`.
//!
//! # What it costs
//! A reading of the clock for each call. For one that has to wait, another reading and a timer. It
//! allocates once for a call that finds the service below not ready; what carries the deadline may
//! also allocate.
//!
//! [`CarryDeadline`]: evenkeel_core::deadline::CarryDeadline
//! [`DeadlineExceeded`]: evenkeel_core::error::DeadlineExceeded

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError, cut,
    deadline::{CallDeadline, CarryDeadline, NotCarried},
    error::DeadlineExceeded,
    time::Timestamp,
};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::clock;

/// Ends calls that take too long. See the [module docs](self).
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer<C = NotCarried> {
    after: Duration,
    carry: C,
}

impl DeadlineLayer {
    /// Ends calls after `after`.
    ///
    /// Zero refuses all of them.
    #[must_use]
    pub const fn new(after: Duration) -> Self {
        Self { after, carry: NotCarried }
    }
}

impl<C> DeadlineLayer<C> {
    /// Sets how requests carry their deadline. Default: not at all.
    #[must_use]
    pub fn carry<D>(self, carry: D) -> DeadlineLayer<D> {
        DeadlineLayer { after: self.after, carry }
    }
}

impl<C: Clone, S> Layer<S> for DeadlineLayer<C> {
    type Service = Deadline<S, C>;

    fn layer(&self, inner: S) -> Deadline<S, C> {
        Deadline { inner, layer: self.clone(), is_waiting: false, client: Client::current() }
    }
}

/// Ends calls that take too long. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Deadline<S, C = NotCarried> {
    inner: S,
    layer: DeadlineLayer<C>,
    /// Whether the inner service was not ready when it was asked: the call waits for it.
    is_waiting: bool,
    client: Client,
}

impl<S, C, Req> Service<Req> for Deadline<S, C>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    C: CarryDeadline<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = DeadlineFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let polled = self.inner.poll_ready(cx);
        self.is_waiting = polled.is_pending();
        match polled {
            Poll::Ready(result) => Poll::Ready(result.map_err(Into::into)),
            // The call waits: its deadline is known only with its request.
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let DeadlineLayer { after, carry } = &self.layer;
        let patience = *after;
        let now = clock::now();
        let given = carry.given(&request).map_or(*after, |given| given.min(*after));
        let at = match carry.deadline(&request) {
            Some(CallDeadline(known)) => known.min(now + given),
            None => now + given,
        };
        let after = at.since(now);
        let state = if after == Duration::ZERO {
            // A call whose time is over is not started, and what was reserved for it is given back.
            self.inner = self.inner.clone();
            State::Over
        } else if self.is_waiting {
            let clone = self.inner.clone();
            let service = mem::replace(&mut self.inner, clone);
            let waiting = Waiting { service, request: Some(request), carry: carry.clone() };
            State::Readying { waiting: Box::new(waiting) }
        } else {
            carry.carry(&mut request, CallDeadline(at), after);
            State::Called { future: self.inner.call(request) }
        };
        DeadlineFuture { state, at, after, patience, timer: None, client: self.client.clone() }
    }
}

pin_project! {
    /// The response, if it arrives in time. See the [module docs](self).
    pub struct DeadlineFuture<S, Req, C = NotCarried>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, C, S::Future>,
        at: Timestamp,
        after: Duration,
        // The time that the layer gives calls. This call may have been given less.
        patience: Duration,
        #[pin]
        timer: Option<Sleep>,
        client: Client,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, Req, C, F> {
        // The service is being driven to ready.
        Readying { waiting: Box<Waiting<S, Req, C>> },
        // The request is under way.
        Called { #[pin] future: F },
        // The time is over.
        Over,
    }
}

/// A request for which the service is not ready yet.
struct Waiting<S, Req, C> {
    service: S,
    // Taken for the call.
    request: Option<Req>,
    carry: C,
}

impl<S, Req, C> Future for DeadlineFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: CarryDeadline<Req>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = loop {
            match this.state.as_mut().project() {
                StateProject::Readying { waiting } => {
                    let Waiting { service, request, carry } = &mut **waiting;
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => break Poll::Ready(Err(error.into())),
                        Poll::Pending => break Poll::Pending,
                    }
                    let remaining = this.at.since(clock::now());
                    if remaining == Duration::ZERO {
                        this.state.set(State::Over);
                        continue;
                    }
                    let mut request = request.take().expect("called once");
                    carry.carry(&mut request, CallDeadline(*this.at), remaining);
                    let future = service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProject::Called { future } => break future.poll(cx).map_err(Into::into),
                StateProject::Over => {
                    return Poll::Ready(Err(exceeded(this.client, *this.after, None)));
                }
            }
        };
        let error = match polled {
            Poll::Ready(Err(error)) if *this.at <= clock::now() => Some(error),
            Poll::Ready(result) => return Poll::Ready(result),
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(this.at.since(clock::now()))));
                }
                let timer = this.timer.as_mut().as_pin_mut().expect("set above");
                if timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                None
            }
        };
        cut::by_deadline(*this.patience, || this.state.set(State::Over));
        Poll::Ready(Err(exceeded(this.client, *this.after, error.as_ref())))
    }
}

#[cold]
fn exceeded(client: &Client, after: Duration, error: Option<&BoxError>) -> BoxError {
    evenkeel_metrics::count_deadline_exceeded(client);
    tracing::debug!(
        target: "evenkeel::deadline",
        client = client.name(),
        ?after,
        error = error.map(tracing::field::display),
        "deadline exceeded"
    );
    DeadlineExceeded::new(after).into()
}

impl<S: Service<Req>, Req, C> fmt::Debug for DeadlineFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").field("after", &self.after).finish_non_exhaustive()
    }
}
