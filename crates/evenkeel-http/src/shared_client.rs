//! An existing client, shared by all endpoints.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{BoxError, connect::Connect, endpoint::Address, node::Node, why::Why};
use http::{Request, Response, uri::Scheme};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    classify::{Classify, StatusClassifier},
    cookie,
    error::{InvalidRequest, RequestError},
    hash_by::HashBy,
    hints,
    hop::{self, Hop},
    target::{self, Host},
    traffic::{HttpTraffic, InFlight},
};

/// Puts an existing client below a balancer: hyper-util's, reqwest's, any service.
///
/// Every request goes through a clone of the one client, with the endpoint's address as its URI's
/// authority. `Host` stays what the request named. No more can be done from outside a client, so it
/// differs from [`HttpConnector`](crate::HttpConnector):
///
/// - a request's `Transfer-Encoding: chunked` stays, while other fields of one hop are removed;
/// - the client decides how it announces an empty body;
/// - over HTTP/2, `:authority` becomes the endpoint's address;
/// - over TLS, the certificate must be valid for the endpoint's address;
/// - connections outlive their endpoint, until the client's idle timeout;
/// - an endpoint's [alternatives](evenkeel_core::endpoint::Endpoint::alternatives) are not tried, only its address;
/// - endpoints on Unix sockets are refused with [`InvalidRequest::Address`];
/// - the caller learns that connecting failed, but discovery does not.
///
/// ```
/// use evenkeel::http::SharedClient;
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
///
/// let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
/// let connect = SharedClient::new(client);
/// # drop(connect);
/// ```
#[derive(Clone, Debug)]
pub struct SharedClient<S, C = StatusClassifier> {
    client: S,
    traffic: HttpTraffic<C>,
}

impl<S> SharedClient<S> {
    /// Sends every request through a clone of `client`.
    #[must_use]
    pub fn new(client: S) -> Self {
        Self { client, traffic: HttpTraffic::new() }
    }
}

impl<S, C> SharedClient<S, C> {
    /// Sets how long a request counts as in flight. Default: [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.traffic = self.traffic.in_flight(in_flight);
        self
    }

    /// Sets the longest delay that an endpoint may ask for. Default: 5 minutes.
    ///
    /// See [`HttpTraffic::max_throttle`].
    #[must_use]
    pub fn max_throttle(mut self, max_throttle: Duration) -> Self {
        self.traffic = self.traffic.max_throttle(max_throttle);
        self
    }

    /// Sets what counts as a failure. Default: [`StatusClassifier`].
    #[must_use]
    pub fn classify<D: Classify>(self, classifier: D) -> SharedClient<S, D> {
        SharedClient { client: self.client, traffic: self.traffic.classify(classifier) }
    }

    /// Sets the hash of requests, for a policy that hashes. Default: none, so requests go to any endpoint.
    ///
    /// A [`HashKey`](crate::HashKey) in a request's extensions comes first.
    #[must_use]
    pub fn hash_by(mut self, hash_by: HashBy) -> Self {
        self.traffic = self.traffic.hash_by(hash_by);
        self
    }
}

impl<S: Clone, C: Clone> Connect for SharedClient<S, C> {
    type Service = SharedService<S>;
    type Traffic = HttpTraffic<C>;

    fn connect(&self, node: &Arc<Node>) -> SharedService<S> {
        let host = match node.address() {
            Address::Unix(_) => None,
            address => Some(Host::of(address)),
        };
        SharedService { client: self.client.clone(), node: node.clone(), host }
    }

    fn traffic(&self) -> HttpTraffic<C> {
        self.traffic.clone()
    }
}

/// Speaks to one endpoint through a shared client. See [`SharedClient`].
#[derive(Clone, Debug)]
pub struct SharedService<S> {
    client: S,
    node: Arc<Node>,
    /// `None` if a URI cannot carry the endpoint's address.
    host: Option<Host>,
}

impl<S> SharedService<S> {
    fn address<B>(&self, request: &mut Request<B>) -> Result<(), InvalidRequest> {
        let host = self.host.as_ref().ok_or(InvalidRequest::Address)?;
        let scheme = request.uri().scheme().cloned().unwrap_or(Scheme::HTTP);
        let named = target::named_authority(request)?;
        target::set_host(request, named.as_ref(), host)?;
        hop::clean_request(request.headers_mut(), Hop::Either)?;
        cookie::join(request.headers_mut());
        target::set_uri(request, scheme, host.authority.clone())
    }
}

impl<S, B, R> Service<Request<B>> for SharedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = SharedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.client.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> SharedFuture<S::Future> {
        let why = hints::why(request.extensions());
        let answer = self.address(&mut request).map(|()| self.client.call(request));
        SharedFuture::new(self.node.clone(), why, answer)
    }
}

pin_project! {
    /// The future of [`SharedService`] and of [`LeafService`](crate::LeafService).
    pub struct SharedFuture<F> {
        node: Arc<Node>,
        why: Option<Why>,
        #[pin]
        answer: Option<F>,
        refusal: Option<InvalidRequest>,
    }
}

impl<F> SharedFuture<F> {
    pub(crate) fn new(
        node: Arc<Node>,
        why: Option<Why>,
        answer: Result<F, InvalidRequest>,
    ) -> Self {
        let (answer, refusal) = match answer {
            Ok(answer) => (Some(answer), None),
            Err(refusal) => (None, Some(refusal)),
        };
        Self { node, why, answer, refusal }
    }
}

impl<F, R, E> Future for SharedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result: Result<_, BoxError> = match this.answer.as_pin_mut() {
            Some(answer) => ready!(answer.poll(cx)).map_err(Into::into),
            None => Err(this.refusal.take().expect("polled again after it was ready").into()),
        };
        let result = result.and_then(|mut response| {
            hop::clean_response(response.status(), response.headers_mut())?;
            Ok(response)
        });
        Poll::Ready(match result {
            Ok(mut response) => {
                hints::answer(response.extensions_mut(), this.node, this.why.take());
                Ok(response)
            }
            Err(error) => Err(RequestError::new(this.node.address().clone(), error).into()),
        })
    }
}

impl<F> fmt::Debug for SharedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFuture").field("node", &self.node).finish_non_exhaustive()
    }
}
