//! One deadline for a call, whatever becomes of it on the way.
//!
//! **Use it** at the top of a client's stack, above retries and hedges, so that what they do together
//! ends in time; and at the top of a server's, where it takes over what the caller has left. **Not** to
//! cut off a single attempt: that is [`attempt_timeout`](crate::retry::RetryLayer::attempt_timeout).
//!
//! * After it, the call fails with [`DeadlineExceeded`], and what was under way is dropped.
//! * A request that carries a deadline already, or was given less time by its sender, keeps the earlier.
//!   How a request carries one a [`CarryDeadline`] tells: nothing by default, `HttpDeadline` of
//!   evenkeel-http for HTTP (an extension, `grpc-timeout` and a header).
//! * It runs until the response is there, not until its body has ended, and not while the stack is made
//!   ready.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel_core::{BoxError, error::{DeadlineExceeded, cause}};
//! use evenkeel_layers::deadline::DeadlineLayer;
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
//! The deadline is its only setting, with how it is carried: `DeadlineLayer::new(after).carry(HttpDeadline)`.
//!
//! # What it costs
//! A reading of the clock for each call and, for one that has to wait, another and a timer. It allocates
//! nothing; what carries the deadline may.
//!
//! [`CarryDeadline`]: evenkeel_core::deadline::CarryDeadline
//! [`DeadlineExceeded`]: evenkeel_core::error::DeadlineExceeded

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    deadline::{CarryDeadline, Deadline, NotCarried},
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
    /// Calls end after `after`.
    ///
    /// Zero refuses all of them.
    #[must_use]
    pub const fn new(after: Duration) -> Self {
        Self { after, carry: NotCarried }
    }
}

impl<C> DeadlineLayer<C> {
    /// Sets how requests carry their deadline. Default not at all.
    #[must_use]
    pub fn carry<D>(self, carry: D) -> DeadlineLayer<D> {
        DeadlineLayer { after: self.after, carry }
    }
}

impl<C: Clone, S> Layer<S> for DeadlineLayer<C> {
    type Service = WithDeadline<S, C>;

    fn layer(&self, inner: S) -> WithDeadline<S, C> {
        WithDeadline { inner, layer: self.clone(), client: Client::current() }
    }
}

/// Ends calls that take too long. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct WithDeadline<S, C = NotCarried> {
    inner: S,
    layer: DeadlineLayer<C>,
    client: Client,
}

impl<S, C, Req> Service<Req> for WithDeadline<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: CarryDeadline<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let DeadlineLayer { after, carry } = &self.layer;
        let now = clock::now();
        let given = carry.given(&request).map_or(*after, |given| given.min(*after));
        let at = match carry.deadline(&request) {
            Some(Deadline(known)) => known.min(now + given),
            None => now + given,
        };
        let after = at.since(now);
        // Nothing is begun that nobody waits for.
        let future = (Duration::ZERO < after).then(|| {
            carry.carry(&mut request, Deadline(at), after);
            self.inner.call(request)
        });
        DeadlineFuture { future, at, after, timer: None, client: self.client.clone() }
    }
}

pin_project! {
    /// The response, if it comes in time. See the [module docs](self).
    pub struct DeadlineFuture<F> {
        // `None` when it is too late.
        #[pin]
        future: Option<F>,
        at: Timestamp,
        after: Duration,
        #[pin]
        timer: Option<Sleep>,
        client: Client,
    }
}

impl<F, R, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(future) = this.future.as_mut().as_pin_mut() {
            if let Poll::Ready(result) = future.poll(cx) {
                return Poll::Ready(result.map_err(Into::into));
            }
            if this.timer.is_none() {
                this.timer.set(Some(sleep(this.at.since(clock::now()))));
            }
            let timer = this.timer.as_mut().as_pin_mut().expect("set above");
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.future.set(None);
        }
        Poll::Ready(Err(exceeded(this.client, *this.after)))
    }
}

#[cold]
fn exceeded(client: &Client, after: Duration) -> BoxError {
    evenkeel_metrics::deadline_exceeded(client);
    let client = client.name();
    tracing::debug!(target: "evenkeel::deadline", client, ?after, "deadline exceeded");
    DeadlineExceeded::new(after).into()
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").field("after", &self.after).finish_non_exhaustive()
    }
}
