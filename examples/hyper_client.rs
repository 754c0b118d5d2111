//! An existing hyper-util client, with its settings and its pool, over several endpoints.

use std::time::Duration;

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    discovery::Fixed,
    http::{ServedBy, SharedClient},
};
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve_text("one").await?, common::serve_text("two").await?];

    let hyper: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build_http();
    let client =
        BalanceLayer::round_robin(Fixed::new(servers)).layer(SharedClient::new(hyper.clone()));

    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = Request::get("http://numbers.internal/next").body(Empty::new())?;
        let response = client.clone().oneshot(request).await?;
        let served_by = response.extensions().get::<ServedBy>().map(|by| by.address().to_string());
        let body = common::text(response).await?;
        println!("{served_by:?} answered {body:?}");
        answers.push(body);
    }
    // The first endpoint is random.
    answers.sort();
    assert_eq!(answers, ["one", "two"]);
    Ok(())
}
