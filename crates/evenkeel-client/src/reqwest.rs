//! A client with the interface of reqwest.

use evenkeel_core::discover::Discovery;
use evenkeel_http::{HttpRetry, ReqwestStack, SharedClient};

use crate::ClientBuilder;

/// Sets up a client with the interface of `client`, over the endpoints of `discovery`, with the
/// stack of the [crate's docs](crate).
///
/// ```
/// use evenkeel::core::{BoxError, endpoint::Endpoint};
///
/// # async fn run(endpoints: Vec<Endpoint>) -> Result<(), BoxError> {
/// let client = evenkeel::client::reqwest(endpoints, reqwest::Client::new()).build();
/// let orders = client.get("http://orders.internal/orders").query(&[("page", "2")]).send().await?;
/// println!("{}", orders.error_for_status()?.text().await?);
/// # Ok(())
/// # }
/// ```
pub fn reqwest(discovery: impl Discovery, client: reqwest::Client) -> ClientBuilder<Reqwest> {
    ClientBuilder::new(discovery, HttpRetry::new(), Reqwest { client })
}

/// A `reqwest::Client` at the bottom of the stack, which speaks to the endpoints. See
/// [`reqwest`](crate::reqwest()).
#[derive(Clone, Debug)]
pub struct Reqwest {
    client: reqwest::Client,
}

impl ClientBuilder<Reqwest> {
    /// Builds the client. It follows its discovery from the first call on.
    ///
    /// # Panics
    /// If a rule of the outlier detection is not valid.
    #[must_use]
    pub fn build(self) -> ReqwestStack {
        let client = self.transport.client.clone();
        let stack = self.stack(SharedClient::reqwest(client.clone()));
        ReqwestStack::new(client, stack)
    }
}
