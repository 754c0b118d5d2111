//! A client for generated tonic clients.

use evenkeel_core::discover::Discovery;
use evenkeel_http::{GrpcStatus, GrpcStatusLayer, HttpConnector, HttpRetry, RequestBody};
use tower_layer::Layer;

use crate::{
    Client, ClientBuilder,
    client::{OverConnector, Protocol, Transport},
};

/// Sets up a client for gRPC over the endpoints of `discovery`, with the stack of the [crate's docs](crate).
///
/// A generated tonic client takes the result: `GreeterClient::new(grpc(endpoints).build())`.
/// Failures in the stack become the gRPC status that is documented for them. For example, a missed
/// deadline is `DEADLINE_EXCEEDED`, and an endpoint that refuses connections is `UNAVAILABLE`.
pub fn grpc<B: RequestBody>(discovery: impl Discovery) -> ClientBuilder<Grpc<B>> {
    ClientBuilder::over(discovery, HttpRetry::grpc(), HttpConnector::grpc())
}

/// gRPC over HTTP/2. See [`grpc()`].
pub type Grpc<B> = Transport<B, GrpcOverHttp>;

/// The service under a generated tonic client: a `tower::Service` of requests, `Clone`. See
/// [`grpc()`].
pub type GrpcClient<B> = Client<B, GrpcOverHttp>;

/// Calls whose failures are gRPC statuses.
#[derive(Debug)]
pub enum GrpcOverHttp {}

impl Protocol for GrpcOverHttp {
    type Stack<B: RequestBody> = GrpcStatus<OverConnector<B>>;

    const CLIENT: &'static str = "GrpcClient";

    fn stack<B: RequestBody>(stack: OverConnector<B>) -> Self::Stack<B> {
        GrpcStatusLayer::new().layer(stack)
    }
}
