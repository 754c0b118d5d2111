//! reqwest as the client below a balancer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::{BoxError, deadline::CallDeadline, error::DeadlineExceeded};
use http::{Request, Response, header::HOST, uri::Authority};
use http_body::Body;
use hyper::body::Bytes;
use reqwest::{ResponseBuilderExt, Url};
use tower_service::Service;

use crate::{
    body::ResponseBody,
    classify::Classify,
    clock,
    retry::{PeekedBody, ReplayBody},
    shared_client::SharedClient,
};

impl SharedClient<ReqwestService> {
    /// Sends every request through a `reqwest::Client`.
    ///
    /// The stack uses the types of `http`, which convert to and from reqwest's, so every layer works on it.
    /// Redirects are followed, and cookies kept, below the balancer: at one endpoint.
    ///
    /// Most programs put a [`ReqwestStack`](crate::ReqwestStack) above, which has the interface of
    /// `reqwest::Client`. Without it, a request's own timeout applies to each attempt:
    ///
    /// ```no_run
    /// use evenkeel::core::connect::Connect;
    /// use evenkeel::http::SharedClient;
    /// use tower::ServiceExt;
    ///
    /// # async fn run(node: &std::sync::Arc<evenkeel::core::node::Node>)
    /// # -> Result<(), evenkeel::core::BoxError> {
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

/// A `reqwest::Client` with the types of `http`.
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
        let host = request.headers().get(HOST);
        let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let request = attempt(request);
        ReqwestFuture(Box::pin(async move {
            let request = request?;
            let sent = request.url().clone();
            let response = client.execute(request).await?;
            let url = logical(response.url(), &sent, host.as_ref());
            let mut response = Response::<reqwest::Body>::from(response);
            // reqwest reads it from an extension that only reqwest can make.
            let (with_url, ()) = Response::builder().url(url).body(())?.into_parts();
            response.extensions_mut().extend(with_url.extensions);
            Ok(response)
        }))
    }
}

/// The request of an attempt. Its timeout, if it has one, is what is left of the call's.
fn attempt<B: Into<reqwest::Body>>(request: Request<B>) -> Result<reqwest::Request, BoxError> {
    let deadline = request.extensions().get::<CallDeadline>().copied();
    let mut request = reqwest::Request::try_from(request)?;
    if let (Some(timeout), Some(CallDeadline(at))) = (request.timeout_mut(), deadline) {
        let remaining = at.since(clock::now());
        if remaining.is_zero() {
            return Err(DeadlineExceeded::new(*timeout).into());
        }
        *timeout = remaining.min(*timeout);
    }
    Ok(request)
}

/// The URL of a response as the caller knows it, with the requested authority for the endpoint's address.
fn logical(url: &Url, sent: &Url, host: Option<&Authority>) -> Url {
    let mut logical = url.clone();
    let Some(host) = host.filter(|_| url.origin() == sent.origin()) else { return logical };
    let is_set =
        logical.set_host(Some(host.host())).is_ok() && logical.set_port(host.port_u16()).is_ok();
    if is_set { logical } else { url.clone() }
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

/// Turns a balanced response into a `reqwest::Response`: `reqwest::Response::from(response)`.
impl<R, C> From<ResponseBody<R, C>> for reqwest::Body
where
    R: Body<Data: Into<Bytes>, Error: Into<BoxError>> + Send + Sync + 'static,
    C: Classify<End: Sync>,
{
    fn from(body: ResponseBody<R, C>) -> Self {
        Self::wrap(body)
    }
}

/// The same for a response above retries and hedges.
impl<R> From<PeekedBody<R>> for reqwest::Body
where
    R: Body<Data: Into<Bytes> + Send + Sync> + Send + Sync + 'static,
    R::Error: Into<BoxError> + Send + Sync,
{
    fn from(body: PeekedBody<R>) -> Self {
        Self::wrap(body)
    }
}

/// For a `reqwest::Client` below retries and hedges.
impl<B> From<ReplayBody<B>> for reqwest::Body
where
    B: Body<Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn from(body: ReplayBody<B>) -> Self {
        if body.is_end_stream() { Self::default() } else { Self::wrap(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_response_names_what_was_asked_for_or_where_a_redirect_led() {
        let url = |text: &str| Url::parse(text).unwrap();
        let named = |of: &str, host: &'static str| {
            let host = Authority::from_static(host);
            logical(&url(of), &url("http://10.0.0.1:80/x"), Some(&host)).to_string()
        };

        assert_eq!(named("http://10.0.0.1/x?y=1", "a.b"), "http://a.b/x?y=1");
        assert_eq!(named("http://10.0.0.1/elsewhere", "a.b:81"), "http://a.b:81/elsewhere");
        assert_eq!(named("http://10.0.0.1/x", "[::1]:7"), "http://[::1]:7/x");
        assert_eq!(named("http://c.d/x", "a.b"), "http://c.d/x");
    }
}
