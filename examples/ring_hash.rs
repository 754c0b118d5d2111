//! Requests of the same user go to the same server, so that its cache is warm. While that server is
//! away, they go to another one; afterwards they return.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use axum::{Router, extract::Path, routing::get};
use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::{node::Gate, policy::RingHash},
    discovery::Fixed,
    http::{HashBy, HttpConnector, ServedBy},
};
use http::{HeaderName, Request};
use http_body_util::Empty;
use tower::{Layer, ServiceExt};

mod common;

/// A server that counts the users that it has to look up.
async fn profiles(lookups: Arc<AtomicU32>) -> Result<std::net::SocketAddr, common::BoxError> {
    let known = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let profile = move |Path(user): Path<String>| async move {
        if known.lock().expect("no panic under the lock").insert(user) {
            lookups.fetch_add(1, Relaxed);
        }
        "profile"
    };
    common::serve(Router::new().route("/profile/{user}", get(profile))).await
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let lookups = Arc::new(AtomicU32::new(0));
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(profiles(lookups.clone()).await?);
    }

    // No server gets more than 1.25 times its share of the requests in flight, even if a user is
    // popular.
    let ring = RingHash::new().bounded_load(1.25);
    let by_user = HashBy::new().header(HeaderName::from_static("x-user"));
    let client = BalanceLayer::with_policy(Fixed::new(servers), ring)
        .layer(HttpConnector::new().hash_by(by_user));
    let ask = async |user: &str| {
        let request = Request::get(format!("/profile/{user}")).header("x-user", user);
        let response = client.clone().oneshot(request.body(Empty::<Bytes>::new())?).await?;
        let served_by = response.extensions().get::<ServedBy>().expect("the connector says it");
        Ok::<_, common::BoxError>(served_by.address().clone())
    };

    for _ in 0..5 {
        for user in ["alice", "bob", "carol", "dave"] {
            ask(user).await?;
        }
    }
    println!("20 requests of 4 users, {} look-ups", lookups.load(Relaxed));
    assert_eq!(lookups.load(Relaxed), 4);

    let home = ask("alice").await?;
    let nodes = client.nodes();
    let node = nodes.iter().find(|node| *node.address() == home).expect("one of the three");
    node.close(Gate::Unhealthy);
    println!("alice: {home}, while that is away {}", ask("alice").await?);
    assert_ne!(ask("alice").await?, home);
    node.open(Gate::Unhealthy);
    assert_eq!(ask("alice").await?, home);
    Ok(())
}
