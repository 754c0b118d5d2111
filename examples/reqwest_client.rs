//! A `reqwest::Client` that is there already, with its settings, over several endpoints.

use evenkeel::{
    balance::BalanceLayer,
    discovery::Fixed,
    http::{ServedBy, SharedClient},
};
use tower::{Layer, ServiceExt};

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve_text("one").await?, common::serve_text("two").await?];

    let reqwest = reqwest::Client::builder().user_agent("evenkeel-example").build()?;
    let client = BalanceLayer::round_robin(Fixed::new(servers))
        .layer(SharedClient::reqwest(reqwest.clone()));

    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = reqwest.get("http://numbers.internal/next").build()?;
        let request: http::Request<reqwest::Body> = request.try_into()?;
        let response = client.clone().oneshot(request).await?;
        let served_by = response.extensions().get::<ServedBy>().map(|by| by.address().to_string());
        let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
        println!("{served_by:?} answered {body:?}");
        answers.push(body);
    }
    // Which comes first is drawn.
    answers.sort();
    assert_eq!(answers, ["one", "two"]);
    Ok(())
}
