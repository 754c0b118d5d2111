//! A shop whose carts are each stored in the memory of one server. A cookie keeps every session at
//! the server with its cart.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use axum::{Router, body::Body, routing::post};
use evenkeel::{
    balance::BalanceLayer,
    discovery::Fixed,
    http::{ErrorToResponseLayer, HttpConnector, StickyLayer},
};
use http::{Request, header};
use tower::{Layer, ServiceBuilder, ServiceExt};

mod common;

/// A server with a cart of its own.
fn shop() -> Router {
    let items = Arc::new(AtomicU32::new(0));
    let add = move || async move { format!("{} in the cart", items.fetch_add(1, Relaxed) + 1) };
    Router::new().route("/cart", post(add))
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let shops = [common::serve(shop()).await?, common::serve(shop()).await?];

    // An axum server in front of both servers.
    let balanced = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new())
        .layer(StickyLayer::opaque("a secret that all gateways have").name("shop"))
        .layer(BalanceLayer::round_robin(Fixed::new(shops)))
        .service(HttpConnector::<Body>::new());
    let gateway = common::serve(Router::new().fallback_service(balanced)).await?;

    // A browser would keep the cookie by itself.
    let browser = BalanceLayer::pick_first(Fixed::new([gateway])).layer(HttpConnector::new());
    let mut cookie = String::new();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let request = Request::post("/cart").header(header::COOKIE, &cookie);
        let response = browser.clone().oneshot(request.body(Body::empty())?).await?;
        if let Some(set) = response.headers().get(header::SET_COOKIE) {
            println!("set-cookie: {}", set.to_str()?);
            cookie = set.to_str()?.split(';').next().unwrap_or_default().to_owned();
        }
        answers.push(common::text(response).await?);
    }
    println!("{answers:?}");
    assert_eq!(answers, ["1 in the cart", "2 in the cart", "3 in the cart"]);
    Ok(())
}
