//! The shortest program: one client over two servers, in turn.

use bytes::Bytes;
use evenkeel::{balance::BalanceLayer, discovery::Fixed, http::HttpConnector};
use http::Request;
use http_body_util::Empty;
use tower::{Service, ServiceBuilder, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve_text("one").await?, common::serve_text("two").await?];

    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(Fixed::new(servers))) // chooses an endpoint for each request
        .service(HttpConnector::new().authority("numbers.internal")); // speaks to one endpoint

    let mut answers = Vec::new();
    for _ in 0..4 {
        let request = Request::get("/next").body(Empty::<Bytes>::new())?;
        answers.push(common::text(client.ready().await?.call(request).await?).await?);
    }
    println!("{answers:?}");
    // The first endpoint is random.
    assert_ne!(answers[0], answers[1]);
    assert_eq!(answers[..2], answers[2..]);
    Ok(())
}
