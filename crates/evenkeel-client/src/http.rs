//! A client for HTTP.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{BoxError, discover::Discovery};
use evenkeel_http::{HttpConnector, HttpRetry, ReplayBody, RequestBody};
use http::Request;
use tower_service::Service;

use crate::{ClientBuilder, Pipeline};

/// Sets up a client for HTTP over the endpoints of `discovery`, with the stack of the [crate's docs](crate).
///
/// `B` is the body of the requests. The compiler infers it from the client's use or from a written
/// type.
pub fn http<B: RequestBody>(discovery: impl Discovery) -> ClientBuilder<Http<B>> {
    let connector = HttpConnector::new().watch_connections();
    ClientBuilder::new(discovery, HttpRetry::new(), Http { connector })
}

/// HTTP/1.1 or HTTP/2, depending on the endpoint. See [`http()`].
pub struct Http<B> {
    pub(crate) connector: HttpConnector<ReplayBody<B>>,
}

impl<B: RequestBody> ClientBuilder<Http<B>> {
    /// Changes how the client connects to one endpoint: TLS, the authority, HTTP/2, connections.
    pub fn connector(
        mut self,
        change: impl FnOnce(HttpConnector<ReplayBody<B>>) -> HttpConnector<ReplayBody<B>>,
    ) -> Self {
        self.transport.connector = change(self.transport.connector);
        self
    }

    /// Builds the client. It follows its discovery from the first call on.
    ///
    /// # Panics
    /// If a rule of the outlier detection is not valid.
    #[must_use]
    pub fn build(self) -> HttpClient<B> {
        let made_of = format!("{self:#?}").into();
        HttpClient { stack: self.stack(self.transport.connector.clone()), made_of }
    }
}

/// A client for HTTP: a `tower::Service` of requests. Cheap to clone and share. See [`http()`].
///
/// Errors are those of the stack. `evenkeel_http::error_status` maps each to a status.
pub struct HttpClient<B: RequestBody> {
    stack: Pipeline<HttpConnector<ReplayBody<B>>>,
    made_of: Arc<str>,
}

impl<B: RequestBody> Service<Request<B>> for HttpClient<B>
where
    Pipeline<HttpConnector<ReplayBody<B>>>: Service<Request<B>, Error = BoxError>,
{
    type Response = <Pipeline<HttpConnector<ReplayBody<B>>> as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = <Pipeline<HttpConnector<ReplayBody<B>>> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.stack.call(request)
    }
}

impl<B: RequestBody> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), made_of: self.made_of.clone() }
    }
}

/// Prints the layers of the client.
impl<B: RequestBody> fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpClient of {}", self.made_of)
    }
}

impl<B> Clone for Http<B> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone() }
    }
}

impl<B> fmt::Debug for Http<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connector.fmt(f)
    }
}
