//! Tower layers of other crates work above a full stack as above any other client.

use std::{convert::Infallible, time::Duration};

use ::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
    retry::Budget,
};
use evenkeel_http::{
    ErrorToResponseLayer, HttpConnector, HttpDeadline, HttpRetry, LoadMeter, PeekedBody,
    ReplayBody, ReportLoadLayer, RequestBody, ResponseBody,
};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, concurrency::ConcurrencyLimitLayer,
    deadline::DeadlineLayer, hedge::HedgeLayer, observe::ObserveLayer, outlier::OutlierLayer,
    per_endpoint::PerEndpoint, retry::RetryLayer,
};
use http_body::Body as _;
use hyper::body::{Bytes, Incoming};
use tonic::{
    Status,
    service::{Interceptor, InterceptorLayer, interceptor::InterceptedService},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::{
    add_extension::AddExtensionLayer,
    auth::{AddAuthorizationLayer, AsyncRequireAuthorizationLayer},
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::CorsLayer,
    csrf::CsrfLayer,
    decompression::{DecompressionLayer, RequestDecompressionLayer},
    follow_redirect::FollowRedirectLayer,
    limit::RequestBodyLimitLayer,
    map_request_body::MapRequestBodyLayer,
    map_response_body::MapResponseBodyLayer,
    metrics::InFlightRequestsLayer,
    normalize_path::NormalizePathLayer,
    on_early_drop::{EarlyDropsAsFailures, OnEarlyDropLayer},
    propagate_header::PropagateHeaderLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    sensitive_headers::SetSensitiveHeadersLayer,
    set_header::{SetRequestHeaderLayer, SetResponseHeaderLayer},
    set_status::SetStatusLayer,
    timeout::{RequestBodyTimeoutLayer, ResponseBodyTimeoutLayer, TimeoutLayer},
    trace::{DefaultOnFailure, TraceLayer},
    validate_request::ValidateRequestHeaderLayer,
};

use crate::sockets::{
    grpc::{self, GreeterClient, hello},
    support::{Payload, echo, get, serve, text, within},
};

type Answered = PeekedBody<PeekedBody<ResponseBody<Incoming>>>;

/// Everything that changes the type of a request or a response.
fn full_stack<B: RequestBody>(
    connector: HttpConnector<ReplayBody<ReplayBody<B>>>,
    address: Address,
) -> impl Service<Request<B>, Response = Response<Answered>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let budget = Budget::default();
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(20)).carry(HttpDeadline))
        .layer(ObserveLayer::new())
        .layer(RetryLayer::new(budget.clone()).rules(HttpRetry::new()))
        .layer(HedgeLayer::after(Duration::from_secs(10), budget).rules(HttpRetry::new()))
        .layer(BalanceLayer::p2c(vec![Endpoint::new(address)]))
        .layer(OutlierLayer::new())
        .layer(CircuitBreakerLayer::new())
        .layer(ConcurrencyLimitLayer::fixed(64))
        .service(connector)
}

/// The layer over a full stack answers as the server did.
async fn answers<L, R>(layer: L)
where
    L: Layer<tower::util::BoxCloneSyncService<Request<Payload>, Response<Answered>, BoxError>>,
    L::Service: Service<Request<Payload>, Response = Response<R>>,
    <L::Service as Service<Request<Payload>>>::Error: std::fmt::Debug,
    R: http_body::Body<Error: std::fmt::Debug>,
{
    let stack = full_stack(HttpConnector::new(), serve(echo).await);
    let stack = layer.layer(tower::util::BoxCloneSyncService::new(stack));

    let response = within(stack.oneshot(get("http://a.b/x"))).await.expect("a response");

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "HTTP/1.1 a.b /x ");
}

#[tokio::test]
async fn every_layer_of_tower_http_stands_above_a_full_stack() {
    const NAME: HeaderName = HeaderName::from_static("x-name");
    let value = HeaderValue::from_static("value");
    let (in_flight, _) = InFlightRequestsLayer::pair();

    answers(AddExtensionLayer::new(7)).await;
    answers(AddAuthorizationLayer::bearer("token")).await;
    answers(AsyncRequireAuthorizationLayer::new(|request: Request<Payload>| async {
        Ok::<_, Response<Answered>>(request)
    }))
    .await;
    answers(CatchPanicLayer::new()).await;
    answers(CompressionLayer::new()).await;
    answers(CorsLayer::permissive()).await;
    answers(CsrfLayer::new()).await;
    answers(DecompressionLayer::new()).await;
    answers(FollowRedirectLayer::new()).await;
    answers(MapRequestBodyLayer::new(|body: Payload| body)).await;
    answers(MapResponseBodyLayer::new(|body: Answered| body)).await;
    answers(in_flight).await;
    answers(NormalizePathLayer::trim_trailing_slash()).await;
    answers(OnEarlyDropLayer::new(EarlyDropsAsFailures::new(DefaultOnFailure::default()))).await;
    answers(PropagateHeaderLayer::new(NAME)).await;
    answers(SetRequestIdLayer::x_request_id(MakeRequestUuid)).await;
    answers(PropagateRequestIdLayer::x_request_id()).await;
    answers(SetSensitiveHeadersLayer::new([NAME])).await;
    answers(SetRequestHeaderLayer::overriding(NAME, value.clone())).await;
    answers(SetResponseHeaderLayer::overriding(NAME, value)).await;
    answers(SetStatusLayer::new(StatusCode::OK)).await;
    answers(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(20)))
        .await;
    answers(ResponseBodyTimeoutLayer::new(Duration::from_secs(20))).await;
    answers(TraceLayer::new_for_http()).await;
    answers(TraceLayer::new_for_grpc()).await;
    answers(ValidateRequestHeaderLayer::accept("*/*")).await;
}

#[tokio::test]
async fn layers_that_change_the_body_of_a_request_stand_above_a_full_stack() {
    let stack = ServiceBuilder::new()
        .layer(RequestBodyTimeoutLayer::new(Duration::from_secs(20)))
        .layer(MapRequestBodyLayer::new(axum::body::Body::new))
        .service(full_stack(HttpConnector::new(), serve(echo).await));
    let response = within(stack.oneshot(get("http://a.b/x"))).await.unwrap();
    assert_eq!(text(response).await, "HTTP/1.1 a.b /x ");

    let stack = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(1))
        .layer(RequestDecompressionLayer::new())
        .map_err(|error: BoxError| -> Infallible { panic!("{error}") })
        .service(full_stack(HttpConnector::new(), serve(echo).await));
    let long =
        Request::post("http://a.b/x").header("content-length", "4").body(Payload::from("long"));
    let response = within(stack.oneshot(long.unwrap())).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_a_layer_answers_with_has_an_empty_body_and_asks_no_endpoint() {
    let stack = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new())
        .layer(ReportLoadLayer::new(LoadMeter::new()))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::ZERO))
        .service(full_stack(HttpConnector::new(), serve(echo).await));

    let response = within(stack.oneshot(get("http://a.b/x"))).await.unwrap();

    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.body().is_end_stream());
    assert_eq!(text(response).await, "");

    let empty = [Answered::default().size_hint(), ReplayBody::<Payload>::default().size_hint()];
    assert!(empty.iter().all(|hint| hint.exact() == Some(0)), "{empty:?}");
}

#[tokio::test]
async fn tower_http_stands_below_the_balancer_too() {
    let stack = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(vec![Endpoint::new(serve(echo).await)]))
        .layer(PerEndpoint::new(TraceLayer::new_for_http()))
        .layer(PerEndpoint::new(SetRequestIdLayer::x_request_id(MakeRequestUuid)))
        .service(HttpConnector::<Payload>::new());

    let response = within(stack.oneshot(get("http://a.b/x"))).await.unwrap();

    assert_eq!(text(response).await, "HTTP/1.1 a.b /x ");
}

/// As tonic generates it.
fn with_interceptor<T, F, R>(inner: T, interceptor: F) -> GreeterClient<InterceptedService<T, F>>
where
    F: Interceptor,
    R: tonic::codegen::Body<Data = Bytes, Error: Into<BoxError> + Send> + Default + Send + 'static,
    T: Service<Request<tonic::body::Body>, Response = Response<R>>,
    T::Error: Into<BoxError> + Send + Sync,
{
    GreeterClient::new(InterceptedService::new(inner, interceptor))
}

#[tokio::test]
async fn a_tonic_client_is_intercepted_over_a_full_stack() {
    let address = serve(grpc::answer).await;
    let pass = |request: tonic::Request<()>| Ok(request);
    let refuse = |_: tonic::Request<()>| Err(Status::unauthenticated("no token"));

    let stack = full_stack(HttpConnector::grpc(), address);
    let layered = ServiceBuilder::new().layer(InterceptorLayer::new(pass)).service(stack.clone());
    let mut layered = GreeterClient::new(layered);
    let mut passed = with_interceptor(stack.clone(), pass);
    let mut refused = with_interceptor(stack, refuse);

    let greeting = hello("hello you");
    assert_eq!(within(layered.greet(hello("you"))).await.unwrap().into_inner(), greeting);
    assert_eq!(within(passed.greet(hello("you"))).await.unwrap().into_inner(), greeting);
    let status = within(refused.greet(hello("you"))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn axum_serves_what_a_full_stack_answers_and_handles_its_errors() {
    use axum::{Router, body::Body, error_handling::HandleErrorLayer, routing::get_service};

    let status = |_: BoxError| async { StatusCode::BAD_GATEWAY };
    let (listener, nowhere) = crate::sockets::support::listen().await;
    drop(listener);
    let [works, fails] = [serve(echo).await, nowhere].map(|address| {
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(status))
            .service(full_stack::<Body>(HttpConnector::new(), address))
    });
    let router = Router::new().route("/fails", get_service(fails)).fallback_service(works);

    let ask = |path| {
        let request = Request::get(path).header("host", "a.b").body(Body::empty()).unwrap();
        within(router.clone().oneshot(request))
    };
    assert_eq!(ask("/fails").await.unwrap().status(), StatusCode::BAD_GATEWAY);
    assert_eq!(text(ask("/x").await.unwrap()).await, "HTTP/1.1 a.b /x ");
}

#[tokio::test]
async fn towers_own_layers_stand_above_a_full_stack() {
    let stack = full_stack(HttpConnector::new(), serve(echo).await);
    let boxed = stack.clone().boxed_clone();
    let stack = ServiceBuilder::new()
        .map_request(|uri: &'static str| get(uri))
        .map_response(|response: Response<Answered>| response.map(axum::body::Body::new))
        .and_then(|response| async { Ok::<_, BoxError>(response) })
        .service(tower::util::Either::<_, tower::util::BoxCloneService<_, _, _>>::Left(stack));

    assert_eq!(
        text(within(stack.oneshot("http://a.b/x")).await.unwrap()).await,
        "HTTP/1.1 a.b /x "
    );
    let response = within(boxed.oneshot(get("http://a.b/x"))).await.unwrap();
    assert_eq!(text(response).await, "HTTP/1.1 a.b /x ");
}
