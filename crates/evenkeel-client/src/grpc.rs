//! A client for generated tonic clients.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{BoxError, discover::Discovery};
use evenkeel_http::{
    GrpcStatus, GrpcStatusLayer, HttpConnector, HttpRetry, ReplayBody, RequestBody,
};
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::{ClientBuilder, Pipeline};

/// Sets up a client for gRPC over the endpoints of `discovery`, with the stack of the [crate's docs](crate).
///
/// A generated tonic client takes the result: `GreeterClient::new(grpc(endpoints).build())`.
/// Failures in the stack become the gRPC status that is documented for them. For example, a missed
/// deadline is `DEADLINE_EXCEEDED`, and an endpoint that refuses connections is `UNAVAILABLE`.
pub fn grpc<B: RequestBody>(discovery: impl Discovery) -> ClientBuilder<Grpc<B>> {
    let connector = HttpConnector::grpc().watch_connections();
    ClientBuilder::new(discovery, HttpRetry::grpc(), Grpc { connector })
}

/// gRPC over HTTP/2. See [`grpc()`].
pub struct Grpc<B> {
    connector: HttpConnector<ReplayBody<B>>,
}

impl<B: RequestBody> ClientBuilder<Grpc<B>> {
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
    pub fn build(self) -> GrpcClient<B> {
        let made_of = format!("{self:#?}").into();
        let stack = self.stack(self.transport.connector.clone());
        GrpcClient { stack: GrpcStatusLayer::new().layer(stack), made_of }
    }
}

/// The service under a generated tonic client: a `tower::Service` of requests, `Clone`. See
/// [`grpc()`].
pub struct GrpcClient<B: RequestBody> {
    stack: Stack<B>,
    made_of: Arc<str>,
}

type Stack<B> = GrpcStatus<Pipeline<HttpConnector<ReplayBody<B>>>>;

impl<B: RequestBody> Service<Request<B>> for GrpcClient<B>
where
    Stack<B>: Service<Request<B>, Error = BoxError>,
{
    type Response = <Stack<B> as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = <Stack<B> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.stack.call(request)
    }
}

impl<B: RequestBody> Clone for GrpcClient<B> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), made_of: self.made_of.clone() }
    }
}

/// Prints the layers of the client.
impl<B: RequestBody> fmt::Debug for GrpcClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcClient of {}", self.made_of)
    }
}

impl<B> Clone for Grpc<B> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone() }
    }
}

impl<B> fmt::Debug for Grpc<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connector.fmt(f)
    }
}
