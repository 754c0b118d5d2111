//! Requests of the same key go to the same server, through the whole stack.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use evenkeel_core::policy::{self, RingHash};
use evenkeel_http::{HashBy, HashKey, HttpConnector, SharedClient};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use http::{HeaderName, Request};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};

mod fleet;

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
    for name in ["ring_hash", "ketama", "maglev", "rendezvous"] {
        let policy = policy::by_name(name).unwrap();
        let client = BalanceLayer::with_policy(endpoints.clone(), policy)
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
async fn a_key_in_the_extensions_is_used_instead_and_one_without_goes_anywhere() {
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
