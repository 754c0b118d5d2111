//! The three clients over real servers on loopback. Some servers never answer, some are gone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use evenkeel_client::{HttpClient, grpc, http};
use evenkeel_core::{
    BoxError,
    endpoint::Endpoint,
    error::{NoEndpoints, cause},
    policy::RoundRobin,
};
use evenkeel_layers::concurrency::ConcurrencyLimitLayer;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Full};
use tokio::net::TcpListener;
use tonic::Code;
use tower::ServiceExt;

const SECOND: Duration = Duration::from_secs(1);

/// Starts an axum server on a free port.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn well() -> SocketAddr {
    serve(Router::new().route("/", get(|| async { "well" }))).await
}

async fn hangs() -> SocketAddr {
    serve(Router::new().route("/", get(std::future::pending::<()>))).await
}

/// An address that refuses connections, because its listener is closed.
async fn refuses() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn endpoints(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|address| Endpoint::new(*address)).collect()
}

async fn ask(client: &HttpClient<Empty<Bytes>>) -> Result<Bytes, BoxError> {
    let request = Request::get("http://orders.internal/").body(Empty::new())?;
    let response = client.clone().oneshot(request).await?;
    assert_eq!(response.status(), 200);
    Ok(response.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn callers_see_neither_an_endpoint_that_refuses_nor_one_that_hangs() {
    let endpoints = endpoints(&[well().await, well().await, refuses().await, hangs().await]);
    let client = http(endpoints).deadline(4 * SECOND).policy(RoundRobin).build();
    for _ in 0..12 {
        assert_eq!(ask(&client).await.unwrap(), "well");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_endpoints_says_so_before_its_deadline() {
    let client = http(Vec::<Endpoint>::new()).build();
    let error = ask(&client).await.unwrap_err();
    assert!(cause::<NoEndpoints>(&*error).is_some(), "{error}");
}

#[tokio::test]
async fn a_client_prints_what_it_is_made_of() {
    let client = http::<Empty<Bytes>>(Vec::<Endpoint>::new())
        .name("orders")
        .retry(|retry| retry.max_attempts(7))
        .limit(|_| ConcurrencyLimitLayer::vegas())
        .connector(|connector| connector.authority("orders.internal"))
        .build();
    let made_of = format!("{client:?}");
    for part in [
        "\"orders\"",
        "5s",
        "max_attempts: 7",
        "PeakEwma",
        "OutlierLayer",
        "ConcurrencyLimitLayer",
        "orders.internal",
    ] {
        assert!(made_of.contains(part), "{part} in {made_of}");
    }
}

/// Answers each gRPC call with one empty message.
async fn grpc_server() -> SocketAddr {
    let answer = || async {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let body =
            Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
        Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(body))
            .unwrap()
    };
    serve(Router::new().route("/greeter.v1.Greeter/Greet", post(answer))).await
}

async fn greet(
    client: evenkeel_client::GrpcClient<tonic::body::Body>,
) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(client);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = "/greeter.v1.Greeter/Greet".parse().unwrap();
    client.unary(tonic::Request::new(()), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn a_tonic_client_gets_answers_and_the_status_of_what_failed() {
    let both = endpoints(&[grpc_server().await, refuses().await]);
    greet(grpc(both).policy(RoundRobin).build()).await.unwrap();

    let status = greet(grpc(endpoints(&[refuses().await])).build()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    let hanging = serve(Router::new().fallback(std::future::pending::<()>)).await;
    let client =
        grpc(endpoints(&[hanging])).deadline(SECOND / 5).retry(|retry| retry.max_attempts(1));
    let status =
        greet(client.retry(|retry| retry.attempt_timeout(SECOND)).build()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_reqwest_client_is_called_as_usual() {
    let endpoints = endpoints(&[well().await, refuses().await]);
    let client =
        evenkeel_client::reqwest(endpoints, reqwest::Client::new()).policy(RoundRobin).build();
    for _ in 0..4 {
        let response = client.get("http://orders.internal/").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "well");
    }
}
