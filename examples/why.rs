//! Why an endpoint was picked: the request asks, and the response has the answer.

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::{endpoint::Endpoint, node::Gate, why::Why},
    discovery::Fixed,
    http::HttpConnector,
};
use http::Request;
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let endpoints = [
        Endpoint::from(common::serve_text("hello").await?),
        Endpoint::from(common::serve_text("hello").await?),
        Endpoint::from(common::serve_text("hello").await?).priority(1),
    ];
    let layer = BalanceLayer::peak_ewma(Fixed::new(endpoints)).tiers();
    let mut client = layer.layer(HttpConnector::new());
    client.ready().await?;
    // Outlier detection would close this gate after failures.
    client.nodes()[0].close(Gate::Ejected);

    for _ in 0..3 {
        let mut request = Request::get("/").body(Empty::<Bytes>::new())?;
        request.extensions_mut().insert(Why::new());
        let response = client.ready().await?.call(request).await?;
        let why = response.extensions().get::<Why>().expect("the request has asked");
        println!("{why}");
        assert!(why.to_string().contains("tier"));
    }
    Ok(())
}
