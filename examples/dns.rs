//! Endpoints from DNS: every address of a name is an endpoint. The name is looked up again
//! according to its TTL.

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::endpoint::Address,
    discovery::{DiscoveryExt, Dns},
    http::HttpConnector,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{Layer, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let server = common::serve_text("found").await?;

    // A name that every machine knows. In a cluster it would be the name of a headless service. The
    // name may also have an IPv6 address, on which no server listens.
    let discovery = Dns::new(format!("dns:///localhost:{}", server.port()))?.filter(
        |endpoint| matches!(endpoint.address, Address::Socket(address) if address.is_ipv4()),
    );
    let client = BalanceLayer::p2c(discovery).layer(HttpConnector::new());

    let request = Request::get("/").body(Empty::<Bytes>::new())?;
    let answer = client.clone().oneshot(request).await?.into_body().collect().await?.to_bytes();
    println!("{:?}", client.nodes());
    assert_eq!(answer, "found");
    Ok(())
}
