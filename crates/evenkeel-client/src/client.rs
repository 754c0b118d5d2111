//! What the clients of HTTP and of gRPC have in common.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{BoxError, discover::Discovery};
use evenkeel_http::{HttpConnector, HttpRetry, ReplayBody, RequestBody};
use http::Request;
use tower_service::Service;

use crate::{ClientBuilder, Pipeline};

/// The stack over the connections of endpoints.
pub(crate) type OverConnector<B> = Pipeline<HttpConnector<ReplayBody<B>>>;

/// A protocol over HTTP: plain [HTTP](crate::http()) or [gRPC](crate::grpc()).
pub trait Protocol: 'static {
    /// The stack of a client, with what the protocol puts on top.
    type Stack<B: RequestBody>: Clone;

    /// The name of the client's type.
    const CLIENT: &'static str;

    /// Puts on top of `stack` what the protocol needs there.
    fn stack<B: RequestBody>(stack: OverConnector<B>) -> Self::Stack<B>;
}

/// What connects a client to its endpoints, by the protocol `P`.
pub struct Transport<B, P> {
    connector: HttpConnector<ReplayBody<B>>,
    protocol: PhantomData<fn() -> P>,
}

impl<B: RequestBody, P: Protocol> ClientBuilder<Transport<B, P>> {
    pub(crate) fn over(
        discovery: impl Discovery,
        rules: HttpRetry,
        connector: HttpConnector<ReplayBody<B>>,
    ) -> Self {
        let connector = connector.watch_connections();
        Self::new(discovery, rules, Transport { connector, protocol: PhantomData })
    }

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
    pub fn build(self) -> Client<B, P> {
        let made_of = format!("{self:#?}").into();
        Client { stack: P::stack(self.stack(self.transport.connector.clone())), made_of }
    }
}

/// A client by the protocol `P`: a `tower::Service` of requests. Cheap to clone and share. See
/// [`http()`](crate::http()) and [`grpc()`](crate::grpc()).
pub struct Client<B: RequestBody, P: Protocol> {
    stack: P::Stack<B>,
    made_of: Arc<str>,
}

impl<B, P> Service<Request<B>> for Client<B, P>
where
    B: RequestBody,
    P: Protocol,
    P::Stack<B>: Service<Request<B>, Error = BoxError>,
{
    type Response = <P::Stack<B> as Service<Request<B>>>::Response;
    type Error = BoxError;
    type Future = <P::Stack<B> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.stack.call(request)
    }
}

impl<B: RequestBody, P: Protocol> Clone for Client<B, P> {
    fn clone(&self) -> Self {
        Self { stack: self.stack.clone(), made_of: self.made_of.clone() }
    }
}

/// Prints the layers of the client.
impl<B: RequestBody, P: Protocol> fmt::Debug for Client<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", P::CLIENT, self.made_of)
    }
}

impl<B, P> Clone for Transport<B, P> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone(), protocol: PhantomData }
    }
}

impl<B, P> fmt::Debug for Transport<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connector.fmt(f)
    }
}
