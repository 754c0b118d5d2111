//! A reqwest user over a balanced stack: the same calls, with balancing, retries and a deadline.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use ::http::{Request, Response, StatusCode};
use evenkeel_core::{
    BoxError,
    endpoint::{Address, Endpoint},
    error::{DeadlineExceeded, cause},
    retry::Budget,
};
use evenkeel_http::{
    HttpConnector, HttpDeadline, HttpRetry, Idempotent, ReqwestStack, ServedBy, SharedClient,
};
use evenkeel_layers::{balance::BalanceLayer, deadline::DeadlineLayer, retry::RetryLayer};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceBuilder;

use crate::sockets::support::{Payload, serve, within};

fn over(address: Address) -> ReqwestStack {
    let reqwest = reqwest::Client::builder().user_agent("a test").build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(20)).carry(HttpDeadline))
        .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(vec![Endpoint::new(address)]))
        .service(SharedClient::reqwest(reqwest.clone()));
    ReqwestStack::new(reqwest, stack)
}

/// Stacks over `address` with other leaves, and without retries.
fn others_over(address: &Address) -> [ReqwestStack; 4] {
    let reqwest = reqwest::Client::new();
    let retry = || RetryLayer::new(Budget::default()).rules(HttpRetry::new());
    let balance = || BalanceLayer::round_robin(vec![Endpoint::new(address.clone())]);
    let hyper = Client::builder(TokioExecutor::new()).build_http();
    let stacks = ServiceBuilder::new();
    [
        ReqwestStack::new(
            reqwest.clone(),
            stacks.clone().layer(balance()).service(SharedClient::reqwest(reqwest.clone())),
        ),
        ReqwestStack::new(
            reqwest.clone(),
            stacks.clone().layer(balance()).service(SharedClient::new(hyper)),
        ),
        ReqwestStack::new(
            reqwest.clone(),
            stacks.clone().layer(balance()).service(HttpConnector::new()),
        ),
        ReqwestStack::new(
            reqwest,
            stacks.layer(retry()).layer(balance()).service(HttpConnector::new()),
        ),
    ]
}

/// A server that is not ready for the first request. Others to `/` get their request back.
async fn fails_once() -> (Address, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let answer = move |request: Request<Incoming>| {
        let is_first = counted.fetch_add(1, SeqCst) == 0;
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut response = Response::new(Payload::from(body));
            if is_first {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            let seen = format!("{} {:?}", head.uri, head.headers.get("user-agent"));
            response.headers_mut().insert("seen", seen.parse().unwrap());
            response
        }
    };
    (serve(answer).await, asked)
}

#[tokio::test]
async fn a_reqwest_user_keeps_the_calls_and_gets_retries() {
    let (address, asked) = fails_once().await;
    let client = over(address.clone());

    let call = client
        .post("http://orders.internal/orders")
        .query(&[("page", "2")])
        .json(&["an order"])
        .extension(Idempotent(true))
        .send();
    let response = within(call).await.unwrap();

    assert_eq!(asked.load(SeqCst), 2, "it was sent again");
    assert_eq!(response.url().as_str(), "http://orders.internal/orders?page=2");
    assert_eq!(response.headers()["seen"], "/orders?page=2 Some(\"a test\")");
    assert_eq!(response.extensions().get::<ServedBy>().unwrap().address(), &address);
    let json: Vec<String> = within(response.json()).await.unwrap();
    assert_eq!(json, ["an order"]);
}

#[tokio::test]
async fn the_answer_to_a_request_that_is_not_safe_to_repeat_comes_back_unchanged() {
    let (address, asked) = fails_once().await;
    let client = over(address);

    let call = client.post("http://orders.internal/orders").body("an order").send();
    let response = within(call).await.unwrap();

    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn the_timeout_of_a_request_is_one_for_the_whole_call() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let silent = move |_: Request<Incoming>| {
        counted.fetch_add(1, SeqCst);
        pending::<Response<Payload>>()
    };
    let address = serve(silent).await;

    for client in others_over(&address).into_iter().chain([over(address)]) {
        asked.store(0, SeqCst);
        let get = client.get("http://orders.internal/17").timeout(Duration::from_millis(200));
        let error = within(get.send()).await.unwrap_err();

        let is_timeout =
            cause::<reqwest::Error>(error.as_ref()).is_some_and(reqwest::Error::is_timeout);
        assert!(is_timeout || cause::<DeadlineExceeded>(error.as_ref()).is_some(), "{error:?}");
        assert_eq!(asked.load(SeqCst), 1, "there is no time for another attempt");
    }
}

#[tokio::test]
async fn the_timeout_of_a_request_covers_its_body() {
    let begins = |_: Request<Incoming>| async {
        let never = futures_util::stream::pending::<Result<_, BoxError>>();
        Response::new(http_body_util::StreamBody::new(never).boxed_unsync())
    };
    let address = serve(begins).await;

    for client in others_over(&address).into_iter().chain([over(address)]) {
        let get = client.get("http://orders.internal/17").timeout(Duration::from_millis(200));
        let response = within(get.send()).await.unwrap();

        let error = within(response.text()).await.unwrap_err();

        assert!(error.is_timeout(), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_that_arrives_in_time_is_complete() {
    let (address, asked) = fails_once().await;
    asked.store(1, SeqCst);
    for client in others_over(&address) {
        let post = client.post("http://orders.internal/17").body("an order");
        let response = within(post.timeout(Duration::from_secs(20)).send()).await.unwrap();

        assert_eq!(within(response.text()).await.unwrap(), "an order");
    }
}

#[tokio::test]
async fn an_invalid_request_is_refused_before_it_is_sent() {
    let client = over("10.0.0.1:1".parse().unwrap());

    let error = within(client.get("no url").send()).await.unwrap_err();

    assert!(cause::<reqwest::Error>(error.as_ref()).is_some_and(reqwest::Error::is_builder));
}
