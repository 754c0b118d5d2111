//! Errors as gRPC statuses, for gRPC callers in this process.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    BoxError,
    error::{RateLimited, RequestThrottled, cause},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    classify::is_grpc,
    error::{ConnectError, InvalidRequest, RequestError},
    status,
};

const CANCELLED: u32 = 1;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const INTERNAL: u32 = 13;
pub(crate) const UNAVAILABLE: u32 = 14;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The most bytes of an error's text in a message, before it is encoded.
const MAX_MESSAGE: usize = 1_024;

/// The gRPC code for `error`; `None` for errors not in this table.
///
/// | error | code |
/// |---|---|
/// | a deadline; a timeout of an attempt, of tower's, of tokio's, of reqwest's | 4, `DEADLINE_EXCEEDED` |
/// | a rate limit or a quota is used up; this client's own throttle | 8, `RESOURCE_EXHAUSTED` |
/// | no endpoints, all closed or excluded; a breaker, a limit, load shedding (tower's too), fail fast | 14, `UNAVAILABLE` |
/// | no connection: refused, not there in time, TLS | 14, `UNAVAILABLE` |
/// | a connection that broke, or that did not answer pings; a `GOAWAY` | 14, `UNAVAILABLE` |
/// | a stream that the server reset | as gRPC says: 14 for `REFUSED_STREAM`, 1 for `CANCEL`, 8 for `ENHANCE_YOUR_CALM`, 7 for `INADEQUATE_SECURITY`, else 13 |
/// | a request that cannot be sent anywhere | 3, `INVALID_ARGUMENT` |
/// | any other; the request's own body failed | none |
///
/// The codes of resets are those of gRPC over HTTP/2 (PROTOCOL-HTTP2, "Errors"). If a connection could not be
/// made in time, the code is `UNAVAILABLE`, as in every gRPC client: the call itself has time left.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::error::{DeadlineExceeded, NoEndpoints};
///
/// assert_eq!(evenkeel::http::grpc_code(&NoEndpoints::new(Duration::ZERO, None)), Some(14));
/// assert_eq!(evenkeel::http::grpc_code(&DeadlineExceeded::new(Duration::ZERO)), Some(4));
/// assert_eq!(evenkeel::http::grpc_code(&std::fmt::Error), None);
/// ```
#[must_use]
pub fn grpc_code(error: &(dyn Error + 'static)) -> Option<u32> {
    let is_throttled =
        cause::<RequestThrottled>(error).is_some() || cause::<RateLimited>(error).is_some();
    if is_throttled {
        return Some(RESOURCE_EXHAUSTED);
    }
    if status::is_refused(error) || cause::<ConnectError>(error).is_some() {
        return Some(UNAVAILABLE);
    }
    if status::is_timeout(error) {
        return Some(DEADLINE_EXCEEDED);
    }
    if cause::<InvalidRequest>(error).is_some() {
        return Some(INVALID_ARGUMENT);
    }
    if cause::<RequestError>(error).is_some_and(RequestError::is_callers_fault) {
        return None;
    }
    let is_of_transport =
        cause::<RequestError>(error).is_some() || cause::<hyper::Error>(error).is_some();
    is_of_transport.then(|| cause::<h2::Error>(error).map_or(UNAVAILABLE, code_of_http2))
}

fn code_of_http2(error: &h2::Error) -> u32 {
    match error.reason() {
        // An error of the whole connection, or one without a frame.
        _ if !error.is_reset() => UNAVAILABLE,
        Some(h2::Reason::REFUSED_STREAM) => UNAVAILABLE,
        Some(h2::Reason::CANCEL) => CANCELLED,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => RESOURCE_EXHAUSTED,
        Some(h2::Reason::INADEQUATE_SECURITY) => PERMISSION_DENIED,
        _ => INTERNAL,
    }
}

/// Turns errors of the stack below into the status that a gRPC client reads.
///
/// **Use it** at the top of a stack under a generated client, such as tonic's. Without it each error is
/// `UNKNOWN` there, since the client does not know our errors. **Not** for a proxy: its callers are outside,
/// and [`ErrorToResponseLayer`](crate::ErrorToResponseLayer) does not show them the addresses in messages.
///
/// * A gRPC call (its content type is `application/grpc`) that fails with an error of a known
///   [code](grpc_code) gets a response of trailers only: `grpc-status`, and in `grpc-message` the error with its
///   causes, up to 1,024 bytes. If the error says when to try again, so does `grpc-retry-pushback-ms`.
///   The error itself is in the response's extensions, as a [`SharedError`](evenkeel_core::error::SharedError).
/// * A response that breaks off ends with such trailers, so that a stream has the right status as well.
/// * It waits for the stack to be ready as any layer does. It keeps an error of readiness for the call, since
///   a generated client turns each error of readiness into `UNKNOWN`.
/// * Other requests, and errors without a known code, pass unchanged. So tonic finds a `tonic::Status` that
///   a layer fails with.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{endpoint::Endpoint, retry::Budget};
/// use evenkeel::http::{GrpcStatusLayer, HttpConnector, HttpDeadline, HttpRetry};
/// use evenkeel::{balance::BalanceLayer, deadline::DeadlineLayer, retry::RetryLayer};
/// use http::{Request, header::CONTENT_TYPE};
/// # use http_body_util::Empty;
/// # use hyper::body::Bytes;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let no_endpoints: Vec<Endpoint> = Vec::new();
/// let stack = ServiceBuilder::new()
///     .layer(GrpcStatusLayer::new())
///     .layer(DeadlineLayer::new(Duration::from_millis(20)).carry(HttpDeadline))
///     .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::grpc()))
///     .layer(BalanceLayer::p2c(no_endpoints))
///     .service(HttpConnector::grpc());
///
/// // A generated client does this: `GreeterClient::new(stack)`.
/// let call = Request::post("/greeter.v1.Greeter/Greet").header(CONTENT_TYPE, "application/grpc");
/// let response = stack.oneshot(call.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
///
/// assert_eq!(response.headers()["grpc-status"], "4");
/// assert_eq!(response.headers()["grpc-message"], "deadline exceeded after 20ms");
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatusLayer(());

impl GrpcStatusLayer {
    /// A layer that turns errors of the stack below into gRPC statuses.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for GrpcStatusLayer {
    type Service = GrpcStatus<S>;

    fn layer(&self, inner: S) -> GrpcStatus<S> {
        GrpcStatus { inner, not_ready: None }
    }
}

/// Turns errors into gRPC statuses. See [`GrpcStatusLayer`].
#[derive(Debug)]
pub struct GrpcStatus<S> {
    inner: S,
    /// The error of readiness, kept until there is a request to answer.
    not_ready: Option<BoxError>,
}

impl<S: Clone> Clone for GrpcStatus<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), not_ready: None }
    }
}

impl<S, B, R> Service<Request<B>> for GrpcStatus<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<GrpcStatusBody<R>>;
    type Error = BoxError;
    type Future = GrpcStatusFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.not_ready.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.not_ready = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_grpc = is_grpc(request.headers());
        match self.not_ready.take() {
            None => GrpcStatusFuture {
                answer: Some(self.inner.call(request)),
                not_ready: None,
                is_grpc,
            },
            not_ready => GrpcStatusFuture { answer: None, not_ready, is_grpc },
        }
    }
}

pin_project! {
    /// The future of [`GrpcStatus`].
    pub struct GrpcStatusFuture<F> {
        #[pin]
        answer: Option<F>,
        not_ready: Option<BoxError>,
        is_grpc: bool,
    }
}

impl<F, R, E> Future for GrpcStatusFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<GrpcStatusBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let is_grpc = *this.is_grpc;
        let error: BoxError = match this.answer.as_pin_mut() {
            Some(answer) => match ready!(answer.poll(cx)) {
                Ok(response) => {
                    let body = |inner| GrpcStatusBody { inner: Some(inner), is_grpc };
                    return Poll::Ready(Ok(response.map(body)));
                }
                Err(error) => error.into(),
            },
            None => this.not_ready.take().expect("polled again after it was ready"),
        };
        Poll::Ready(match grpc_code(error.as_ref()).filter(|_| is_grpc) {
            Some(code) => {
                let message = chain(error.as_ref());
                let body = GrpcStatusBody::default();
                Ok(status::trailers_only(code, &message, error, body))
            }
            None => Err(error),
        })
    }
}

impl<F> fmt::Debug for GrpcStatusFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcStatusFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response, with a status at its end if it breaks off; or an empty body.
    #[derive(Debug)]
    pub struct GrpcStatusBody<R> {
        #[pin]
        inner: Option<R>,
        is_grpc: bool,
    }
}

impl<R> Default for GrpcStatusBody<R> {
    /// An empty body: the answer of an interceptor that refuses a call.
    fn default() -> Self {
        Self { inner: None, is_grpc: false }
    }
}

impl<R> Body for GrpcStatusBody<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let error: BoxError = match ready!(inner.poll_frame(cx)) {
            Some(Err(error)) => error.into(),
            frame => return Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
        };
        Poll::Ready(Some(match grpc_code(error.as_ref()).filter(|_| *this.is_grpc) {
            Some(code) => {
                // Nothing comes after the trailers.
                this.inner.set(None);
                let mut trailers = HeaderMap::new();
                tell(&mut trailers, code, &chain(error.as_ref()));
                Ok(Frame::trailers(trailers))
            }
            None => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Writes a status: its code, and its message if there is one.
pub(crate) fn tell(headers: &mut HeaderMap, code: u32, message: &str) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    if !message.is_empty() {
        headers.insert(GRPC_MESSAGE, encode(message));
    }
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        let cause = error.to_string();
        // Some errors repeat their cause.
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// A message as gRPC writes it: all but printable ASCII is percent-encoded (PROTOCOL-HTTP2).
fn encode(message: &str) -> HeaderValue {
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use evenkeel_core::error::{
        AllEndpointsClosed, AttemptTimeout, CircuitOpen, DeadlineExceeded, FailedFast,
        LimitReached, NoEndpoints, Overloaded, SharedError,
    };
    use evenkeel_net::ConnectTimeout;

    use super::*;

    fn code(error: impl Into<BoxError>) -> Option<u32> {
        grpc_code(error.into().as_ref())
    }

    #[test]
    fn each_error_has_the_code_that_grpc_clients_expect() {
        let address = || "10.0.0.1:80".parse().unwrap();
        let connect = |error: BoxError| ConnectError::new(address(), error);
        let reset = |reason: h2::Reason| RequestError::new(address(), h2::Error::from(reason));
        let timeout = ConnectTimeout::new(Duration::ZERO);
        let rate = evenkeel_core::quota::Rate::per_second(1);
        assert_eq!(code(DeadlineExceeded::new(Duration::ZERO)), Some(4));
        assert_eq!(code(AttemptTimeout::new(Duration::ZERO)), Some(4));
        assert_eq!(code(tower::timeout::error::Elapsed::new()), Some(4));
        assert_eq!(code(RateLimited::new(Duration::ZERO, rate)), Some(8));
        assert_eq!(code(RequestThrottled::new(0.5)), Some(8));
        assert_eq!(code(NoEndpoints::new(Duration::ZERO, None)), Some(14));
        assert_eq!(code(AllEndpointsClosed::new(3, Duration::ZERO)), Some(14));
        assert_eq!(code(CircuitOpen::new(None)), Some(14));
        assert_eq!(code(LimitReached::new(7, Duration::ZERO)), Some(14));
        assert_eq!(code(Overloaded::new(4, Duration::ZERO)), Some(14));
        assert_eq!(code(tower::load_shed::error::Overloaded::new()), Some(14));
        assert_eq!(code(FailedFast::new(Duration::ZERO)), Some(14));
        assert_eq!(code(connect(timeout.into())), Some(14));
        assert_eq!(code(connect(io::Error::other("certificate expired").into())), Some(14));
        assert_eq!(code(RequestError::new(address(), io::Error::other("broken pipe"))), Some(14));
        assert_eq!(code(RequestError::new(address(), InvalidRequest::Uri)), Some(3));
        // Made here, such an error counts as one of the connection.
        assert_eq!(code(reset(h2::Reason::CANCEL)), Some(14));
        assert_eq!(code("anything"), None);
    }

    #[test]
    fn a_message_names_all_causes_once_in_printable_ascii_and_is_bounded() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "80 % of « all »\n");
        let address = "10.0.0.1:80".parse().unwrap();
        let connect = ConnectError::new(address, refused.into());
        let no_endpoints = NoEndpoints::new(Duration::ZERO, Some(SharedError::new(connect.into())));

        let mut headers = HeaderMap::new();
        tell(&mut headers, 14, &chain(&no_endpoints));
        let long = encode(&"ä".repeat(MAX_MESSAGE));

        assert_eq!(
            headers[GRPC_MESSAGE],
            "no endpoints after waiting 0ns: connecting to 10.0.0.1:80 failed: \
             80 %25 of %C2%AB all %C2%BB%0A"
        );
        assert_eq!(long.len(), MAX_MESSAGE * 3);
    }
}
