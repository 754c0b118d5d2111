//! reqwest as the client below a balancer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{body::ResponseBody, classify::Classify, shared_client::SharedClient};

impl SharedClient<ReqwestService> {
    /// Sends every request through a `reqwest::Client`.
    ///
    /// The stack speaks `http` types, which reqwest's convert to and from, so that every layer works
    /// on it. Redirects are followed, and cookies kept, below the balancer: by the one endpoint.
    ///
    /// ```no_run
    /// use evenkeel_core::connect::Connect;
    /// use evenkeel_http::SharedClient;
    /// use tower::ServiceExt;
    ///
    /// # async fn run(node: &std::sync::Arc<evenkeel_core::node::Node>)
    /// # -> Result<(), evenkeel_core::BoxError> {
    /// let client = reqwest::Client::new();
    /// let connect = SharedClient::reqwest(client.clone());
    /// // A balancer does this for each endpoint.
    /// let service = connect.connect(node);
    ///
    /// let request = client.get("http://orders.internal/17").build()?;
    /// let request: http::Request<reqwest::Body> = request.try_into()?;
    /// let response: reqwest::Response = service.oneshot(request).await?.into();
    /// println!("{}", response.text().await?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reqwest(client: reqwest::Client) -> Self {
        Self::new(ReqwestService(client))
    }
}

/// A `reqwest::Client` that speaks the types of `http`.
#[derive(Clone, Debug)]
pub struct ReqwestService(reqwest::Client);

impl<B: Into<reqwest::Body>> Service<Request<B>> for ReqwestService {
    type Response = Response<reqwest::Body>;
    type Error = BoxError;
    type Future = ReqwestFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ReqwestFuture {
        let client = self.0.clone();
        let request = reqwest::Request::try_from(request);
        ReqwestFuture(Box::pin(async move { Ok(client.execute(request?).await?.into()) }))
    }
}

/// The future of [`ReqwestService`].
pub struct ReqwestFuture(
    Pin<Box<dyn Future<Output = Result<Response<reqwest::Body>, BoxError>> + Send>>,
);

impl Future for ReqwestFuture {
    type Output = Result<Response<reqwest::Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}

/// Makes a `reqwest::Response` of a balanced one: `reqwest::Response::from(response)`.
impl<R, C> From<ResponseBody<R, C>> for reqwest::Body
where
    R: Body<Data: Into<hyper::body::Bytes>, Error: Into<BoxError>> + Send + Sync + 'static,
    C: Classify<End: Sync>,
{
    fn from(body: ResponseBody<R, C>) -> Self {
        Self::wrap(body)
    }
}
