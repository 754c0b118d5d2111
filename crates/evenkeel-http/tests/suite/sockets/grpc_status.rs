//! The status that a tonic client gets when the stack below it refuses or fails.

use std::time::Duration;

use evenkeel_core::{BoxError, endpoint::Endpoint, quota::Rate, retry::Budget};
use evenkeel_http::{GrpcStatusLayer, HttpConnector, HttpDeadline, HttpRetry};
use evenkeel_layers::{
    balance::BalanceLayer, concurrency::ConcurrencyLimitLayer, deadline::DeadlineLayer,
    fail_fast::FailFastLayer, rate_limit::RateLimitLayer, retry::RetryLayer,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::StreamExt;
use tonic::{
    Code, Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
    service::interceptor::InterceptedService,
};
use tower::{Layer, ServiceBuilder, service_fn};

use crate::sockets::{
    grpc::{GreeterClient, Hello, answer, hello},
    support::{listen, serve, serve_stream, within},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn connector<B>() -> HttpConnector<B> {
    HttpConnector::grpc().connect_timeout(Duration::from_secs(5))
}

/// An endpoint that nothing listens on.
async fn closed() -> Endpoint {
    let (listener, address) = listen().await;
    drop(listener);
    Endpoint::new(address)
}

/// An endpoint that accepts connections and sends nothing.
async fn silent() -> (Endpoint, tokio::net::TcpListener) {
    let (listener, address) = listen().await;
    (Endpoint::new(address), listener)
}

/// The layers that the documentation recommends, over `endpoints`, with the part under test.
macro_rules! recommended {
    ($endpoints:expr $(, $layer:expr)*) => {
        ServiceBuilder::new()
            .layer(GrpcStatusLayer::new())
            $(.layer($layer))*
            .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::grpc()))
            .layer(BalanceLayer::p2c($endpoints).max_wait(ms(300)))
            .service(connector())
    };
}

/// The status of a unary call and of a streaming one, which are the same.
async fn status<T>(stack: T) -> Status
where
    T: GrpcService<Body> + Clone,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = GreeterClient::new(stack);
    let unary = within(client.greet(hello("you"))).await.unwrap_err();
    let streaming = within(client.chat(tokio_stream::iter([hello("you")]))).await.unwrap_err();
    assert_eq!(unary.code(), streaming.code(), "{unary:?}, {streaming:?}");
    unary
}

fn assert_is(status: &Status, code: Code, message: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(message), "{status:?}");
}

#[tokio::test]
async fn no_endpoints_are_unavailable() {
    let no_endpoints = Vec::<Endpoint>::new;
    assert_is(&status(recommended!(no_endpoints())).await, Code::Unavailable, "no endpoints");
    let fast = recommended!(no_endpoints(), FailFastLayer::new(ms(50)));
    assert_is(&status(fast).await, Code::Unavailable, "service not ready");
}

#[tokio::test]
async fn a_deadline_is_deadline_exceeded_whether_an_endpoint_hangs_or_none_is_there() {
    let deadline = || DeadlineLayer::new(ms(100)).carry(HttpDeadline);
    let (silent, _listener) = silent().await;
    for endpoints in [vec![silent], vec![]] {
        let stack = recommended!(endpoints, deadline());
        assert_is(&status(stack).await, Code::DeadlineExceeded, "deadline exceeded after 100ms");
    }
    let (silent, _listener) = self::silent().await;
    let tower = recommended!(vec![silent], tower::timeout::TimeoutLayer::new(ms(100)));
    assert_is(&status(tower).await, Code::DeadlineExceeded, "timed out");
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_says_where() {
    let closed = closed().await;
    let refused = status(recommended!(vec![closed.clone()])).await;
    assert_is(&refused, Code::Unavailable, &format!("connecting to {} failed", closed.address));
    assert_is(&refused, Code::Unavailable, "refused");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unavailable() {
    let plain = Endpoint::new(serve(answer).await);
    let stack = ServiceBuilder::new()
        .layer(GrpcStatusLayer::new())
        .layer(BalanceLayer::p2c(vec![plain]))
        .service(connector().tls(crate::sockets::tls::trusting_one_authority()));
    assert_is(&status(stack).await, Code::Unavailable, "failed");
}

#[tokio::test]
async fn a_limit_is_unavailable_and_a_rate_resource_exhausted_with_the_time_to_wait() {
    let (silent, listener) = silent().await;
    let stack = recommended!(vec![silent], ConcurrencyLimitLayer::fixed(1));
    let mut first = GreeterClient::new(stack.clone());
    let under_way = tokio::spawn(async move { first.greet(hello("you")).await });
    // It has passed the limit when it connects.
    within(listener.accept()).await.unwrap();
    assert_is(&status(stack).await, Code::Unavailable, "limit of 1 concurrent calls reached");
    under_way.abort();

    let rate = Rate::new(1, Duration::from_secs(60));
    let stack = recommended!(vec![closed().await], RateLimitLayer::new(rate));
    let mut client = GreeterClient::new(stack.clone());
    within(client.greet(hello("you"))).await.unwrap_err();
    let limited = status(stack).await;
    assert_is(&limited, Code::ResourceExhausted, "rate limited");
    assert!(limited.metadata().contains_key("grpc-retry-pushback-ms"));
}

#[tokio::test]
async fn a_status_of_the_server_passes_as_it_is() {
    let stack = recommended!(vec![Endpoint::new(serve(answer).await)]);
    let mut client = GreeterClient::new(stack);
    assert_eq!(within(client.greet(hello("you"))).await.unwrap().into_inner(), hello("hello you"));
    for code in [Code::NotFound, Code::Internal, Code::Unavailable] {
        let number = hello((code as i32).to_string());
        let status = within(client.greet(number)).await.unwrap_err();
        assert_is(&status, code, "as you wish");
    }
}

#[tokio::test]
async fn a_status_that_a_layer_fails_with_passes_as_it_is() {
    let stack = GrpcStatusLayer::new().layer(service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, BoxError>(Status::permission_denied("not you").into())
    }));
    assert_is(&status(stack).await, Code::PermissionDenied, "not you");
}

#[tokio::test]
async fn below_an_interceptor_the_status_is_the_same_and_the_interceptor_has_its_own() {
    let stack = recommended!(vec![closed().await]);
    let agrees = |request: tonic::Request<()>| Ok(request);
    let refuses = |_: tonic::Request<()>| Err(Status::unauthenticated("who is it"));

    let intercepted = InterceptedService::new(stack.clone(), agrees);
    assert_is(&status(intercepted).await, Code::Unavailable, "refused");
    let intercepted = InterceptedService::new(stack, refuses);
    assert_is(&status(intercepted).await, Code::Unauthenticated, "who is it");
}

/// Serves one connection, which the test can break.
async fn breaks() -> (Endpoint, oneshot::Sender<()>, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let (breaking, broken) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::select! {
            () = serve_stream(stream, answer) => {}
            _ = broken => {}
        }
    });
    (Endpoint::new(address), breaking, task)
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_as_unavailable() {
    let (endpoint, breaking, _task) = breaks().await;
    let mut client = GreeterClient::new(recommended!(vec![endpoint]));
    let questions = tokio_stream::iter([hello("you")]).chain(tokio_stream::pending::<Hello>());
    let mut answers = within(client.chat(questions)).await.unwrap().into_inner();
    assert_eq!(within(answers.message()).await.unwrap(), Some(hello("hello you")));

    breaking.send(()).unwrap();

    let status = within(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(!status.message().is_empty());
}
