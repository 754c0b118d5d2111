//! Refusals as responses, for a balanced stack that serves other callers.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::{
        AttemptTimeout, CircuitOpen, DeadlineExceeded, RateLimited, RequestThrottled, SharedError,
        cause, is_refusal,
    },
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    classify::is_grpc,
    delay,
    error::{ConnectError, InvalidRequest},
    grpc_status::{UNAVAILABLE, grpc_code, tell},
};

/// The HTTP status for `error`.
///
/// | error | status |
/// |---|---|
/// | no endpoints, all closed or excluded, none picked; a breaker, a limit, load shedding (tower's too), fail fast | 503 |
/// | a rate limit or a quota is used up; this client's own throttle | 429 |
/// | a deadline; a timeout of an attempt, of connecting, or of tower's, tokio's or reqwest's | 504 |
/// | a request that cannot be sent anywhere | 400 |
/// | a request with another transfer coding than `chunked` (RFC 9112, section 6.1) | 501 |
/// | any other | 502 |
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::error::NoEndpoints;
///
/// let error = NoEndpoints::new(Duration::from_secs(1), None);
/// assert_eq!(evenkeel::http::error_status(&error), 503);
/// ```
#[must_use]
pub fn error_status(error: &(dyn Error + 'static)) -> StatusCode {
    let is_throttled =
        cause::<RequestThrottled>(error).is_some() || cause::<RateLimited>(error).is_some();
    if is_throttled {
        StatusCode::TOO_MANY_REQUESTS
    } else if is_refused(error) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if is_timeout(error) {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        match cause::<InvalidRequest>(error) {
            Some(InvalidRequest::TransferCoding) => StatusCode::NOT_IMPLEMENTED,
            Some(_) => StatusCode::BAD_REQUEST,
            None => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Whether a layer of this process, ours or tower's load shedding, refused a request before it was sent.
pub(crate) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    is_refusal(error) || cause::<tower::load_shed::error::Overloaded>(error).is_some()
}

/// Whether it is a timeout.
pub(crate) fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if cause::<reqwest::Error>(error).is_some_and(reqwest::Error::is_timeout) {
        return true;
    }
    cause::<DeadlineExceeded>(error).is_some()
        || cause::<AttemptTimeout>(error).is_some()
        || cause::<ConnectError>(error).is_some_and(ConnectError::is_timeout)
        || cause::<tokio::time::error::Elapsed>(error).is_some()
        || cause::<tower::timeout::error::Elapsed>(error).is_some()
}

/// The delay until another try is worthwhile, if the error names one.
pub(crate) fn retry_after(error: &(dyn Error + 'static)) -> Option<Duration> {
    let limited = cause::<RateLimited>(error).map(|limited| limited.retry_after);
    limited.or_else(|| cause::<CircuitOpen>(error)?.retry_after)
}

/// A gRPC response that has only a status. Its HTTP status is always 200.
pub(crate) fn trailers_only<R>(code: u32, message: &str, error: BoxError, body: R) -> Response<R> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    tell(headers, code, message);
    if let Some(after) = retry_after(error.as_ref()) {
        delay::tell(headers, after, true);
    }
    response.extensions_mut().insert(SharedError::new(error));
    response
}

/// Answers with a status when the stack below fails.
///
/// A proxy has to answer even if no endpoint can. With this layer the stack never fails, as axum requires of
/// a fallback service. A program that calls for itself should keep the errors or, under a generated gRPC
/// client, use [`GrpcStatusLayer`](crate::GrpcStatusLayer).
///
/// The status is [`error_status`]. For a gRPC request it is [`grpc_code`], or `UNAVAILABLE` if there is none. If
/// the error says when to try again, so does the response, in `Retry-After` or in `grpc-retry-pushback-ms`. The
/// body is empty. `grpc-message` names only what was refused or took too long: other errors name addresses, which
/// callers outside should not see. The error itself is in the response's extensions as a [`SharedError`].
///
/// ```
/// use evenkeel::core::{BoxError, error::NoEndpoints};
/// use evenkeel::http::ErrorToResponseLayer;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let stack = ServiceBuilder::new()
///     .layer(ErrorToResponseLayer::new())
///     .service(service_fn(|_: http::Request<String>| async {
///         let refusal = NoEndpoints::new(std::time::Duration::ZERO, None);
///         Err::<http::Response<String>, BoxError>(refusal.into())
///     }));
///
/// let response = stack.oneshot(http::Request::new(String::new())).await.unwrap();
///
/// assert_eq!(response.status(), 503);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorToResponseLayer(());

impl ErrorToResponseLayer {
    /// A layer that answers when the stack below it fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for ErrorToResponseLayer {
    type Service = ErrorToResponse<S>;

    fn layer(&self, inner: S) -> ErrorToResponse<S> {
        ErrorToResponse { inner, not_ready: None }
    }
}

/// Answers with a status when the stack below fails. See [`ErrorToResponseLayer`].
#[derive(Debug)]
pub struct ErrorToResponse<S> {
    inner: S,
    /// The error of readiness, kept until there is a request to answer.
    not_ready: Option<BoxError>,
}

impl<S: Clone> Clone for ErrorToResponse<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), not_ready: None }
    }
}

impl<S, B, R> Service<Request<B>> for ErrorToResponse<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody<R>>;
    type Error = Infallible;
    type Future = ErrorToResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.not_ready.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.not_ready = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ErrorToResponseFuture<S::Future> {
        let is_grpc = is_grpc(request.headers());
        match self.not_ready.take() {
            None => {
                let answer = Some(self.inner.call(request));
                ErrorToResponseFuture { answer, error: None, is_grpc }
            }
            error => ErrorToResponseFuture { answer: None, error, is_grpc },
        }
    }
}

pin_project! {
    /// The future of [`ErrorToResponse`].
    pub struct ErrorToResponseFuture<F> {
        #[pin]
        answer: Option<F>,
        error: Option<BoxError>,
        is_grpc: bool,
    }
}

impl<F, R, E> Future for ErrorToResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<AnswerBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.answer.as_pin_mut() {
            Some(answer) => match ready!(answer.poll(cx)) {
                Ok(response) => {
                    return Poll::Ready(
                        Ok(response.map(|inner| AnswerBody { inner: Some(inner) })),
                    );
                }
                Err(error) => error.into(),
            },
            None => this.error.take().expect("polled again after it was ready"),
        };
        Poll::Ready(Ok(respond(error, *this.is_grpc)))
    }
}

impl<F> fmt::Debug for ErrorToResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorToResponseFuture").finish_non_exhaustive()
    }
}

fn respond<R>(error: BoxError, is_grpc: bool) -> Response<AnswerBody<R>> {
    if is_grpc {
        let code = grpc_code(error.as_ref()).unwrap_or(UNAVAILABLE);
        let message = public_message(error.as_ref());
        return trailers_only(code, &message, error, AnswerBody::default());
    }
    let mut response = Response::new(AnswerBody::default());
    *response.status_mut() = error_status(error.as_ref());
    if let Some(after) = retry_after(error.as_ref()) {
        delay::tell(response.headers_mut(), after, false);
    }
    response.extensions_mut().insert(SharedError::new(error));
    response
}

/// The message for a caller outside: only the refusal or the timeout, without its causes.
fn public_message(error: &(dyn Error + 'static)) -> String {
    // The last error that matches is the refusal or the timeout itself.
    let innermost = |is: fn(&(dyn Error + 'static)) -> bool| {
        std::iter::successors(Some(error), |&error| error.source())
            .take_while(|&error| is(error))
            .last()
    };
    match innermost(is_refused).or_else(|| innermost(is_timeout)) {
        Some(error) if !names_address(error) => error.to_string(),
        _ => "no endpoint answered".to_owned(),
    }
}

fn names_address(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if error.is::<reqwest::Error>() {
        return true;
    }
    error.is::<ConnectError>()
}

pin_project! {
    /// The body of a response. By default it is empty.
    #[derive(Debug)]
    pub struct AnswerBody<R> {
        #[pin]
        inner: Option<R>,
    }
}

impl<R> Default for AnswerBody<R> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<R: Body> Body for AnswerBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        self.project().inner.as_pin_mut().map_or(Poll::Ready(None), |inner| inner.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_core::{
        endpoint::Address,
        error::{
            AllEndpointsClosed, FailedFast, LimitReached, NoEndpointPicked, NoEndpoints, Overloaded,
        },
    };
    use evenkeel_net::ConnectTimeout;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::error::RequestError;

    fn address() -> Address {
        "10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn each_error_has_its_status() {
        let status = |error: BoxError| error_status(error.as_ref()).as_u16();
        let timeout = ConnectTimeout::new(Duration::ZERO);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(status(NoEndpoints::new(Duration::ZERO, None).into()), 503);
        assert_eq!(status(AllEndpointsClosed::new(3, Duration::ZERO).into()), 503);
        assert_eq!(status(NoEndpointPicked::new("own", 2).into()), 503);
        let picked = respond::<String>(NoEndpointPicked::new("own", 2).into(), true);
        assert_eq!(picked.headers()["grpc-status"], "14");
        assert_eq!(status(ConnectError::new(address(), timeout.into()).into()), 504);
        assert_eq!(status(ConnectError::new(address(), refused.into()).into()), 502);
        assert_eq!(status(RequestError::new(address(), InvalidRequest::Uri).into()), 400);
        assert_eq!(status(DeadlineExceeded::new(Duration::ZERO).into()), 504);
        assert_eq!(status(AttemptTimeout::new(Duration::ZERO).into()), 504);
        let rate = evenkeel_core::quota::Rate::per_second(1);
        assert_eq!(status(RateLimited::new(Duration::ZERO, rate).into()), 429);
        assert_eq!(status(CircuitOpen::new(None).into()), 503);
        assert_eq!(status(LimitReached::new(7, Duration::ZERO).into()), 503);
        assert_eq!(status(Overloaded::new(4, Duration::ZERO).into()), 503);
        assert_eq!(status(FailedFast::new(Duration::ZERO).into()), 503);
        assert_eq!(status(RequestThrottled::new(0.9).into()), 429);
        assert_eq!(status(tower::timeout::error::Elapsed::new().into()), 504);
        assert_eq!(status(tower::load_shed::error::Overloaded::new().into()), 503);
        assert_eq!(status("anything".into()), 502);
    }

    #[test]
    fn a_message_for_callers_outside_names_no_address() {
        let message = |error: BoxError| public_message(error.as_ref());
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        let timeout = ConnectTimeout::new(Duration::ZERO);
        let discovery = SharedError::new(ConnectError::new(address(), refused()).into());
        let no_endpoints = NoEndpoints::new(Duration::ZERO, Some(discovery));
        assert_eq!(message(no_endpoints.into()), "no endpoints after waiting 0ns");
        assert_eq!(message(ConnectError::new(address(), refused()).into()), "no endpoint answered");
        assert_eq!(
            message(ConnectError::new(address(), timeout.into()).into()),
            "no endpoint answered"
        );
        let deadline = RequestError::new(address(), DeadlineExceeded::new(Duration::ZERO));
        assert_eq!(message(deadline.into()), "deadline exceeded after 0ns");
        assert_eq!(message("user root at 10.0.0.1".into()), "no endpoint answered");
    }

    #[tokio::test]
    async fn a_deadline_of_grpc_is_its_own_code_with_its_message() {
        let late = respond::<String>(DeadlineExceeded::new(Duration::from_secs(2)).into(), true);
        assert_eq!(late.headers()["grpc-status"], "4");
        assert_eq!(late.headers()["grpc-message"], "deadline exceeded after 2s");
    }

    #[test]
    fn an_open_breaker_says_when_it_is_worth_trying_again() {
        let respond = |is_grpc| {
            let open = CircuitOpen::new(Some(Duration::from_millis(1_200)));
            respond::<String>(open.into(), is_grpc)
        };
        assert_eq!(respond(false).headers()["retry-after"], "2");
        assert_eq!(respond(true).headers()["grpc-retry-pushback-ms"], "1200");
        assert_eq!(respond(true).headers()["grpc-status"], "14");
        let throttled = super::respond::<String>(RequestThrottled::new(0.5).into(), true);
        assert_eq!(throttled.headers()["grpc-status"], "8");
    }

    #[tokio::test]
    async fn a_stack_that_is_not_ready_answers_and_may_recover() {
        #[derive(Clone)]
        struct NotReadyOnce(bool);

        impl Service<Request<()>> for NotReadyOnce {
            type Response = Response<String>;
            type Error = BoxError;
            type Future = std::future::Ready<Result<Response<String>, BoxError>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
                let is_ready = std::mem::replace(&mut self.0, true);
                let refusal = || AllEndpointsClosed::new(3, Duration::ZERO).into();
                Poll::Ready(if is_ready { Ok(()) } else { Err(refusal()) })
            }

            fn call(&mut self, _: Request<()>) -> Self::Future {
                assert!(self.0, "called without being ready");
                std::future::ready(Ok(Response::new("hello".to_owned())))
            }
        }

        let mut stack = ErrorToResponseLayer::new().layer(NotReadyOnce(false));
        let refused = stack.ready().await.unwrap().call(Request::new(())).await.unwrap();
        let answered = stack.ready().await.unwrap().call(Request::new(())).await.unwrap();

        assert_eq!(refused.status(), 503);
        assert_eq!(answered.status(), 200);
    }

    #[tokio::test]
    async fn a_rate_limited_caller_is_told_when_to_try_again() {
        let stack = ErrorToResponseLayer::new().layer(service_fn(|_: Request<String>| async {
            let rate = evenkeel_core::quota::Rate::per_second(1);
            let limited = RateLimited::new(Duration::from_micros(1_500_001), rate);
            Err::<Response<String>, BoxError>(limited.into())
        }));
        let mut request = Request::new(String::new());
        let http = stack.clone().oneshot(request.clone()).await.unwrap();
        let grpc = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        let grpc = stack.oneshot(request).await.unwrap();

        assert_eq!(http.status(), 429);
        assert_eq!(http.headers()["retry-after"], "2");
        assert_eq!(grpc.headers()["grpc-status"], "8");
        assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "1501");
    }

    #[tokio::test]
    async fn a_grpc_caller_gets_a_grpc_status() {
        let stack = ErrorToResponseLayer::new().layer(service_fn(|_: Request<String>| async {
            Err::<Response<String>, BoxError>(NoEndpoints::new(Duration::ZERO, None).into())
        }));
        let mut request = Request::new(String::new());
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));

        let response = stack.oneshot(request).await.unwrap();

        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert!(response.body().is_end_stream());
        assert!(response.extensions().get::<SharedError>().is_some());
    }
}
