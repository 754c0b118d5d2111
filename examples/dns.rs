//! Endpoints from DNS: every address of a name is one, looked up again as its TTL says.

use bytes::Bytes;
use evenkeel::{balance::BalanceLayer, discovery::Dns, http::HttpConnector};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{Layer, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let server = common::serve_text("found").await?;

    // A name that every machine knows; in a cluster it would be that of a headless service.
    let discovery = Dns::new(format!("dns:///localhost:{}", server.port()))?;
    let client = BalanceLayer::p2c(discovery).layer(HttpConnector::new());

    // `localhost` may also have an IPv6 address, where nobody listens: the other one is as good.
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        if let Ok(response) = client.clone().oneshot(request).await {
            answers.push(response.into_body().collect().await?.to_bytes());
        }
    }
    let addresses: Vec<_> = client.nodes().iter().map(|node| node.address().to_string()).collect();
    println!("{addresses:?}: {} of 20 requests were answered", answers.len());
    assert!(answers.iter().any(|answer| answer == "found"));
    Ok(())
}
