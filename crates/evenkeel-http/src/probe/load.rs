//! Probes that ask servers for their load.

use std::{fmt, sync::Arc};

use evenkeel_core::{BoxError, load::ServerLoad, node::Node, probe::LoadProbe};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};

use super::{
    body::{Whole, read},
    grpc::answer,
    line::{Line, send_over},
};
use crate::{
    connector::HttpConnector,
    load::{PROBE_PATH, message, read_text},
};

/// The header with the hash of the request for which a probe asks.
const HASH_HEADER: HeaderName = HeaderName::from_static("evenkeel-hash");

/// How many bytes of an answer's body are read.
const MAX_BODY: usize = 4 << 10;

/// Asks a server for its load over HTTP, for [`Prequal`](evenkeel_core::policy::Prequal).
///
/// The server has a [`ReportLoadLayer`](crate::ReportLoadLayer), or answers a `GET` with a status of 200 to
/// 299 and the header
/// `endpoint-load-metrics: TEXT named_metrics.evenkeel.in_flight=7,named_metrics.evenkeel.latency=0.012`.
///
/// A probe for a request with a hash (see [`HashBy`](crate::HashBy)) sends that in the header
/// `evenkeel-hash`, in decimal digits, for [`ReportLoadLayer::answer_with`](crate::ReportLoadLayer::answer_with).
///
/// Connections are kept from one probe to the next, since there are several probes for each request.
///
/// ```
/// use evenkeel::core::endpoint::Endpoint;
/// use evenkeel::http::HttpLoadProbe;
/// use evenkeel::balance::BalanceLayer;
///
/// let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse().unwrap()];
/// let layer = BalanceLayer::prequal(endpoints, HttpLoadProbe::new());
/// # drop(layer);
/// ```
pub struct HttpLoadProbe {
    line: Line,
    path: PathAndQuery,
    headers: HeaderMap,
}

impl HttpLoadProbe {
    /// Asks at the endpoint's own port, over HTTP/1.1 without TLS, for [`PROBE_PATH`](crate::PROBE_PATH).
    #[must_use]
    pub fn new() -> Self {
        let mut line = Line::new(HttpConnector::new());
        line.is_kept = true;
        Self { line, path: PathAndQuery::from_static(PROBE_PATH), headers: HeaderMap::new() }
    }

    /// Connects as `connector` does: its TLS, its protocol, its authority.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        self.line.connector = connector.for_body();
        self
    }

    /// Sets the path. Default: [`PROBE_PATH`](crate::PROBE_PATH).
    ///
    /// # Panics
    /// If `path` is not a path, with or without a query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        let path = path.parse::<PathAndQuery>().ok().filter(|path| path.as_str().starts_with('/'));
        self.path = path.expect("a path begins with a slash");
        self
    }

    /// Asks at another port. Default: the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.line.port = Some(port);
        self
    }

    /// Sends a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

impl Default for HttpLoadProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadProbe for HttpLoadProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<ServerLoad, BoxError> {
        self.probe_for(node, None).await
    }

    async fn probe_for(&self, node: &Arc<Node>, hash: Option<u64>) -> Result<ServerLoad, BoxError> {
        let service = self.line.take(node);
        let mut request = Request::new(Whole::default());
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        if let Some(hash) = hash {
            request.headers_mut().insert(HASH_HEADER, hash.into());
        }
        let response = send_over(&service, request).await?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()).into());
        }
        let report = read_text(response.headers()).ok_or("the answer has no report of load")?;
        let load = report.server_load.ok_or("the report says nothing of requests in flight")?;
        let (_, is_cut) = read(response.into_body(), MAX_BODY).await?;
        if !is_cut {
            self.line.keep(node, service);
        }
        Ok(load)
    }
}

impl fmt::Debug for HttpLoadProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLoadProbe").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Asks a server for its load over gRPC, for [`Prequal`](evenkeel_core::policy::Prequal).
///
/// The server has a [`ReportLoadLayer`](crate::ReportLoadLayer), or implements
/// `evenkeel.load.v1.LoadService/Probe`: an empty message is answered with
/// `Load { double in_flight = 1; double latency_seconds = 2; }`. Connections are kept from one probe to the
/// next.
///
/// ```
/// use evenkeel::http::GrpcLoadProbe;
///
/// let probe = GrpcLoadProbe::new().port(9_000);
/// # drop(probe);
/// ```
pub struct GrpcLoadProbe {
    line: Line,
}

impl GrpcLoadProbe {
    /// Asks at the endpoint's own port, over HTTP/2 without TLS.
    #[must_use]
    pub fn new() -> Self {
        let mut line = Line::new(HttpConnector::new().http2());
        line.is_kept = true;
        Self { line }
    }

    /// Connects as `connector` does, but always over HTTP/2.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        self.line.connector = connector.for_body().http2();
        self
    }

    /// Asks at another port. Default: the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.line.port = Some(port);
        self
    }
}

impl Default for GrpcLoadProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadProbe for GrpcLoadProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<ServerLoad, BoxError> {
        let service = self.line.take(node);
        // An empty message, uncompressed.
        let mut request = Request::new(Whole::new(&[0_u8; 5][..]));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(message::PROBE);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let (status, answered) = answer(send_over(&service, request).await?).await?;
        if status != 0 {
            return Err(format!("grpc-status {status}").into());
        }
        let load = message::read(&answered.ok_or("an answer without a message")?)?;
        self.line.keep(node, service);
        Ok(load)
    }
}

impl fmt::Debug for GrpcLoadProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcLoadProbe").finish_non_exhaustive()
    }
}
