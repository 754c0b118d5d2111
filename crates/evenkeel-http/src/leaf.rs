//! Your own service that speaks HTTP to an endpoint.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{BoxError, connect::Connect, node::Node};
use http::{Request, Response};
use tower_service::Service;

use crate::{
    classify::{Classify, StatusClassifier},
    cookie,
    hash_by::HashBy,
    hints,
    hop::{self, Hop},
    shared_client::SharedFuture,
    target,
    traffic::{HttpTraffic, InFlight},
};

/// Speaks HTTP or gRPC to each endpoint through your own service: tonic's `Channel`, a hyper connection.
///
/// A plain closure tells a balancer only whether there was an error. Outlier detection, breakers and retries
/// do not see a gRPC status in trailers, a 503 or a request's hints. Through this leaf they are read as over
/// [`HttpConnector`](crate::HttpConnector).
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{endpoint::Endpoint, node::Node};
/// use evenkeel::http::HttpLeaf;
/// use evenkeel::{balance::BalanceLayer, outlier::OutlierLayer};
/// use tonic::transport::{Channel, Uri};
/// use tower::ServiceBuilder;
///
/// # fn run(endpoints: Vec<Endpoint>) {
/// let channel = |node: &Arc<Node>| {
///     let uri: Uri = format!("http://{}", node.address()).parse().expect("a socket address is an authority");
///     Channel::builder(uri).connect_lazy()
/// };
/// let stack = ServiceBuilder::new()
///     .layer(BalanceLayer::p2c(endpoints))
///     .layer(OutlierLayer::new())
///     .service(HttpLeaf::new(channel));
/// # drop(stack);
/// # }
/// ```
///
/// Under retries and hedges requests have a [`ReplayBody`](crate::ReplayBody), but a `Channel` takes only tonic's
/// body. tower's `map_request` converts it:
///
/// ```
/// # use evenkeel::http::{HttpLeaf, ReplayBody};
/// # use tonic::{body::Body, transport::Channel};
/// # use tower::ServiceExt;
/// # fn run(connect: impl Fn(&std::sync::Arc<evenkeel::core::node::Node>) -> Channel) {
/// let leaf = HttpLeaf::new(move |node: &std::sync::Arc<_>| {
///     connect(node).map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
/// });
/// # drop(leaf);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HttpLeaf<F, C = StatusClassifier> {
    connect: F,
    traffic: HttpTraffic<C>,
}

impl<F: Connect> HttpLeaf<F> {
    /// Speaks to each endpoint through the service that `connect` makes: a closure `Fn(&Arc<Node>) -> Service`.
    #[must_use]
    pub fn new(connect: F) -> Self {
        Self { connect, traffic: HttpTraffic::new() }
    }
}

impl<F, C> HttpLeaf<F, C> {
    /// Sets how long a request counts as in flight. Default: [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.traffic = self.traffic.in_flight(in_flight);
        self
    }

    /// Reads the load that endpoints report, in any form of ORCA, for a policy that uses it. Default: off.
    #[cfg(feature = "orca")]
    #[must_use]
    pub fn load_reports(mut self) -> Self {
        self.traffic = self.traffic.load_reports();
        self
    }

    /// Sets what counts as a failure. Default: [`StatusClassifier`].
    #[must_use]
    pub fn classify<D: Classify>(self, classifier: D) -> HttpLeaf<F, D> {
        HttpLeaf { connect: self.connect, traffic: self.traffic.classify(classifier) }
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

impl<F: Connect, C: Clone> Connect for HttpLeaf<F, C> {
    type Service = LeafService<F::Service>;
    type Traffic = HttpTraffic<C>;

    fn connect(&self, node: &Arc<Node>) -> LeafService<F::Service> {
        LeafService { inner: self.connect.connect(node), node: node.clone() }
    }

    fn traffic(&self) -> HttpTraffic<C> {
        self.traffic.clone()
    }
}

/// Speaks to one endpoint. See [`HttpLeaf`].
#[derive(Clone)]
pub struct LeafService<S> {
    inner: S,
    node: Arc<Node>,
}

impl<S, B, R> Service<Request<B>> for LeafService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = SharedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> SharedFuture<S::Future> {
        let why = hints::why(request.extensions());
        let answer = target::named_authority(&request)
            .and_then(|_| hop::clean_request(request.headers_mut(), Hop::Either))
            .map(|()| {
                cookie::join(request.headers_mut());
                self.inner.call(request)
            });
        SharedFuture::new(self.node.clone(), why, answer)
    }
}

impl<S> fmt::Debug for LeafService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeafService").field(self.node.address()).finish()
    }
}
