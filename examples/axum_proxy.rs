//! A balanced stack as the fallback service of an axum router: requests that the router does not
//! know go to the old servers.

use axum::{Router, body::Body, routing::get};
use evenkeel::{
    balance::BalanceLayer,
    discovery::Fixed,
    http::{ErrorToResponseLayer, HttpConnector},
};
use tower::ServiceBuilder;

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve_text("old one").await?, common::serve_text("old two").await?];

    let old = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new()) // refusals become 503 and the like: axum wants no errors
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(HttpConnector::<Body>::new());
    let router = Router::new().route("/new", get(|| async { "new" })).fallback_service(old);

    let router = common::serve(router).await?;
    let mut answers = Vec::new();
    for path in ["/new", "/a", "/b"] {
        answers.push(common::get_text(router, path).await?);
    }
    println!("{answers:?}");
    // The first endpoint is random.
    answers.sort();
    assert_eq!(answers, ["new", "old one", "old two"]);
    Ok(())
}
