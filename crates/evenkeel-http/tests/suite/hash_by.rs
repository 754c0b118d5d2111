//! Requests of the same key go to the same server, through the whole stack.

use std::{collections::HashSet, time::Duration};

use axum::{Router, routing::get};
use evenkeel_core::{
    endpoint::Endpoint,
    policy::{self, RingHash},
};
use evenkeel_http::{HashBy, HashKey, HttpConnector, HttpLoadProbe, PROBE_PATH, SharedClient};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use http::{HeaderMap, HeaderName, Request};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

use crate::fleet;

const USER: HeaderName = HeaderName::from_static("x-user");

type Payload = Empty<Bytes>;

fn request(user: &str) -> Request<Payload> {
    Request::get("/").header(USER, user).body(Payload::new()).unwrap()
}

async fn asked(client: &Balance<HttpConnector<Payload>>, request: Request<Payload>) -> String {
    fleet::name(client.clone().oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn the_same_key_is_answered_by_the_same_server() {
    let endpoints = fleet::endpoints(3).await;
    for policy in policy::BUILT_IN.iter().filter(|policy| policy.hashes()) {
        let name = policy.name;
        let client = BalanceLayer::with_policy(endpoints.clone(), policy.make())
            .layer(HttpConnector::new().hash_by(HashBy::new().header(USER)));
        let mut seen = HashSet::new();
        for user in 0..60 {
            let user = user.to_string();
            let first = asked(&client, request(&user)).await;
            for _ in 0..3 {
                assert_eq!(asked(&client, request(&user)).await, first, "{name}: user {user}");
            }
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3, "{name} uses all servers");
    }
}

#[tokio::test]
async fn a_key_in_the_extensions_is_used_instead_and_a_request_without_one_goes_anywhere() {
    let endpoints = fleet::endpoints(3).await;
    let client = BalanceLayer::with_policy(endpoints, RingHash::new())
        .seed(1)
        .layer(HttpConnector::new().hash_by(HashBy::new().header(USER)));

    let home = asked(&client, request("alice")).await;
    let mut anywhere = HashSet::new();
    for user in 0..60 {
        let mut request = request(&user.to_string());
        request.extensions_mut().insert(HashKey::of("alice"));
        assert_eq!(asked(&client, request).await, home);
        anywhere.insert(asked(&client, Request::new(Payload::new())).await);
    }
    assert_eq!(anywhere.len(), 3);
}

#[tokio::test]
async fn a_shared_client_hashes_too_and_a_closed_endpoints_keys_come_back() {
    let client: Client<_, Payload> = Client::builder(TokioExecutor::new()).build_http();
    let client = BalanceLayer::maglev(fleet::endpoints(3).await)
        .layer(SharedClient::new(client).hash_by(HashBy::new().header(USER)));
    let asked =
        || async { fleet::name(client.clone().oneshot(request("bob")).await.unwrap()).await };

    let home = asked().await;
    let nodes = client.nodes();
    let node = nodes.iter().find(|node| node.address().to_string() == home).unwrap();
    node.close(evenkeel_core::node::Gate::Ejected);
    let elsewhere = asked().await;
    assert_ne!(elsewhere, home);
    assert_eq!(asked().await, elsewhere);
    node.open(evenkeel_core::node::Gate::Ejected);

    assert_eq!(asked().await, home);
}

/// Servers that report which keys they have in their caches attract those requests. A server that never
/// answers does not delay them.
#[tokio::test]
async fn a_probe_says_for_which_key_it_asks() {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for server in 0..3 {
        let probed = move |headers: HeaderMap| async move {
            let hash: u64 = headers["evenkeel-hash"].to_str().unwrap().parse().unwrap();
            let in_flight = match (hash + server) % 3 {
                0 => 0.5,
                1 => 5.0,
                _ => std::future::pending().await,
            };
            let load = format!(
                "TEXT named_metrics.evenkeel.in_flight={in_flight},named_metrics.evenkeel.latency=0.01"
            );
            [("endpoint-load-metrics", load)]
        };
        let router = Router::new()
            .route(PROBE_PATH, get(probed))
            .fallback(get(move || async move { server.to_string() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        endpoints.push(listener.local_addr().unwrap().into());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let client = BalanceLayer::ask_first(endpoints, HttpLoadProbe::new())
        .probe_timeout(Duration::from_secs(10))
        .layer(HttpConnector::new().hash_by(HashBy::new().header(USER)));
    let mut seen = HashSet::new();
    for user in 0..30 {
        let user = user.to_string();
        let home = asked(&client, request(&user)).await;
        assert_eq!(asked(&client, request(&user)).await, home);
        seen.insert(home);
    }
    assert_eq!(seen.len(), 3);
}
