//! Counts the requests in flight, and asks callers to leave.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::state::{DrainHandle, InFlight, Phase, Shared, Visits};
use crate::tunnel::{Cut, Offer};

/// Counts the requests in flight, and asks callers to leave. See [`Drain`](super::Drain).
///
/// An upgraded connection, such as a WebSocket, and a tunnel of `CONNECT` count until both their directions
/// have ended. They count that long in layers above this one, too, if those read responses as
/// [`HttpTraffic`](crate::HttpTraffic) does: a concurrency limit, for example. The result of
/// `hyper::upgrade::on` does not downcast to the server's own stream. It is ready at once: if the upgrade
/// fails later, the first read or write fails.
///
/// A request costs two atomic additions and a clone of an `Arc`. Only upgrades allocate.
#[derive(Clone, Debug)]
pub struct DrainLayer {
    shared: Arc<Shared>,
    visits: Option<Arc<Visits>>,
}

impl DrainLayer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, visits: None }
    }

    /// The same for one connection, which also has its own count.
    pub(super) fn of_connection(shared: Arc<Shared>, visits: Arc<Visits>) -> Self {
        Self { shared, visits: Some(visits) }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> DrainService<S> {
        DrainService { inner, shared: self.shared.clone(), visits: self.visits.clone() }
    }
}

/// Counts the requests in flight, and asks callers to leave. See [`DrainLayer`].
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
    shared: Arc<Shared>,
    visits: Option<Arc<Visits>>,
}

impl<S, B, R> Service<Request<B>> for DrainService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<DrainBody<R>>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let has_connection = request.version() <= Version::HTTP_11;
        let in_flight = InFlight::new(&self.shared, self.visits.as_ref());
        let offer = Offer::of(&mut request, || {
            let handle = DrainHandle(self.shared.clone());
            let cut: Cut = Box::pin(async move { handle.reached(Phase::Ended).await });
            Some(cut)
        });
        let future = self.inner.call(request);
        DrainFuture { future, in_flight: Some(in_flight), offer, has_connection }
    }
}

pin_project! {
    /// The future of [`DrainService`].
    pub struct DrainFuture<F> {
        #[pin]
        future: F,
        in_flight: Option<InFlight>,
        offer: Offer,
        // Whether the connection carries this request alone, as before HTTP/2.
        has_connection: bool,
    }
}

impl<F, R, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<DrainBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let in_flight = this.in_flight.take().expect("a future is not polled after its end");
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if *this.has_connection && !is_upgrade && in_flight.has_reached(Phase::Waiting) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let in_flight = this.offer.accept(&mut response, in_flight);
        Poll::Ready(Ok(response.map(|inner| DrainBody { inner: Some(inner), in_flight })))
    }
}

impl<F> fmt::Debug for DrainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response, in flight until it is dropped. By default it is empty and belongs to no request.
    #[derive(Debug)]
    pub struct DrainBody<B> {
        #[pin]
        inner: Option<B>,
        // `None` if it belongs to a tunnel.
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for DrainBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.as_pin_mut().map_or(Poll::Ready(None), |inner| inner.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Default for DrainBody<B> {
    fn default() -> Self {
        Self { inner: None, in_flight: None }
    }
}

/// Answers any request, with 200 while the server is ready and with 503 once it drains.
///
/// ```
/// use evenkeel::http::Drain;
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let drain = Drain::new();
/// let ready = drain.readiness(); // with axum: `.route_service("/ready", drain.readiness())`
/// let ask = || http::Request::get("/ready").body(()).unwrap();
///
/// assert_eq!(ready.clone().oneshot(ask()).await.unwrap().status(), 200);
/// drain.handle().start();
/// assert_eq!(ready.oneshot(ask()).await.unwrap().status(), 503);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Readiness(pub(super) Arc<Shared>);

impl<B> Service<Request<B>> for Readiness {
    type Response = Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(String::new());
        if self.0.has_reached(Phase::NotReady) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        std::future::ready(Ok(response))
    }
}
