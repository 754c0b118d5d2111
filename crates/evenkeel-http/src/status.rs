//! Refusals as responses, for a balanced stack that serves others.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
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
};

/// The HTTP status that tells a caller of `error`.
///
/// | error | status |
/// |---|---|
/// | no endpoints, all closed or excluded, none picked; a breaker, a limit, load shedding, fail fast | 503 |
/// | a rate limit or a quota is used up; this client's own throttle | 429 |
/// | a deadline; a timeout of an attempt, of connecting, or of tokio's | 504 |
/// | a request that cannot be sent anywhere | 400 |
/// | any other | 502 |
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::error::NoEndpoints;
///
/// let error = NoEndpoints::new(Duration::from_secs(1), None);
/// assert_eq!(evenkeel_http::error_status(&error), 503);
/// ```
#[must_use]
pub fn error_status(error: &(dyn std::error::Error + 'static)) -> StatusCode {
    let is_timeout = cause::<DeadlineExceeded>(error).is_some()
        || cause::<AttemptTimeout>(error).is_some()
        || cause::<ConnectError>(error).is_some_and(ConnectError::is_timeout)
        || cause::<tokio::time::error::Elapsed>(error).is_some();
    let is_throttled =
        cause::<RequestThrottled>(error).is_some() || cause::<RateLimited>(error).is_some();
    if is_throttled {
        StatusCode::TOO_MANY_REQUESTS
    } else if is_refusal(error) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if is_timeout {
        StatusCode::GATEWAY_TIMEOUT
    } else if cause::<InvalidRequest>(error).is_some() {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::BAD_GATEWAY
    }
}

/// Answers with a status where the stack below fails.
///
/// A proxy has to answer when no endpoint can. With this layer the stack never fails, as axum asks of
/// a fallback service. A stack that calls on its own behalf is better off with the errors.
///
/// The status is [`error_status`], or for a gRPC request the `grpc-status` `UNAVAILABLE`,
/// `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED` or `INVALID_ARGUMENT`. Where the error says when to try again,
/// so does the response: in `Retry-After`, or in `grpc-retry-pushback-ms`. The body is empty, since an error names addresses that
/// are nobody's business outside; the error itself is in the response's extensions as a
/// [`SharedError`].
///
/// ```
/// use evenkeel_core::{BoxError, error::NoEndpoints};
/// use evenkeel_http::ErrorToResponseLayer;
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
    /// A layer that answers where the stack below it fails.
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

/// Answers with a status where the stack below fails. See [`ErrorToResponseLayer`].
#[derive(Debug)]
pub struct ErrorToResponse<S> {
    inner: S,
    /// The error that readiness gave, until a request is there to be told.
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
    let status = error_status(error.as_ref());
    let limited = cause::<RateLimited>(error.as_ref()).map(|limited| limited.retry_after);
    let open = || cause::<CircuitOpen>(error.as_ref()).and_then(|open| open.retry_after);
    let retry_after = limited.or_else(open);
    let mut response = Response::new(AnswerBody { inner: None });
    if is_grpc {
        // A response of trailers only: its status is 200, whatever the call's is.
        let code = match status {
            StatusCode::BAD_REQUEST => 3,
            StatusCode::GATEWAY_TIMEOUT => 4,
            StatusCode::TOO_MANY_REQUESTS => 8,
            _ => 14,
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(code));
    } else {
        *response.status_mut() = status;
    }
    if let Some(after) = retry_after {
        delay::tell(response.headers_mut(), after, is_grpc);
    }
    response.extensions_mut().insert(SharedError::new(error));
    response
}

pin_project! {
    /// The body of a response, or nothing in place of one.
    #[derive(Debug)]
    pub struct AnswerBody<R> {
        #[pin]
        inner: Option<R>,
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
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::error::{ConnectTimeout, RequestError};

    fn address() -> Address {
        "10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn each_error_has_its_status() {
        let status = |error: BoxError| error_status(error.as_ref()).as_u16();
        let timeout = ConnectTimeout { after: Duration::ZERO };
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
        assert_eq!(status("anything".into()), 502);
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
    async fn who_is_rate_limited_is_told_when_to_try_again() {
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
