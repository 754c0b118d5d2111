//! A client for HTTP.

use evenkeel_core::discover::Discovery;
use evenkeel_http::{HttpConnector, HttpRetry, RequestBody};

use crate::{
    Client, ClientBuilder,
    client::{OverConnector, Protocol, Transport},
};

/// Sets up a client for HTTP over the endpoints of `discovery`, with the stack of the [crate's docs](crate).
///
/// `B` is the body of the requests. The compiler infers it from the client's use or from a written
/// type.
pub fn http<B: RequestBody>(discovery: impl Discovery) -> ClientBuilder<Http<B>> {
    ClientBuilder::over(discovery, HttpRetry::new(), HttpConnector::new())
}

/// HTTP/1.1 or HTTP/2, depending on the endpoint. See [`http()`].
pub type Http<B> = Transport<B, PlainHttp>;

/// A client for HTTP: a `tower::Service` of requests. Cheap to clone and share. See [`http()`].
///
/// Errors are those of the stack. `evenkeel_http::error_status` maps each to a status.
pub type HttpClient<B> = Client<B, PlainHttp>;

/// Requests and responses as they are.
#[derive(Debug)]
pub enum PlainHttp {}

impl Protocol for PlainHttp {
    type Stack<B: RequestBody> = OverConnector<B>;

    const CLIENT: &'static str = "HttpClient";

    fn stack<B: RequestBody>(stack: OverConnector<B>) -> OverConnector<B> {
        stack
    }
}
