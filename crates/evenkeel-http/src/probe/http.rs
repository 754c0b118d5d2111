//! A probe that asks over HTTP.

use std::{
    fmt,
    ops::{Bound, RangeBounds, RangeInclusive},
    sync::Arc,
};

use evenkeel_core::{
    BoxError,
    health::check::{NotServing, Probe},
    node::Node,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, uri::PathAndQuery};

use super::{
    body::{Whole, read},
    line::{Line, send_over},
};
use crate::connector::HttpConnector;

/// How many bytes of a body are read by default.
const MAX_BODY: usize = 16 << 10;

/// Asks an endpoint for a path, and checks the answer: status, headers, body.
///
/// An unexpected answer means that the endpoint must not be used, and closes it at once. A missing answer
/// has to be confirmed by further probes. That is Envoy's rule.
///
/// Each probe makes its own connection, as those of HAProxy and Kubernetes do. So it sees what the next new
/// connection would see, from the listener's queue to the last byte of the answer. An old connection that
/// still works, or one to a process that is being replaced, does not hide that new ones are refused.
/// [`keep_connections`](Self::keep_connections) saves the handshakes where those matter more.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::http::HttpProbe;
///
/// let probe = HttpProbe::new("/healthz")
///     .host("orders.internal")
///     .expect_status(200..=204)
///     .expect_body("ok");
/// # drop(probe);
/// ```
pub struct HttpProbe {
    line: Line,
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    statuses: Vec<RangeInclusive<u16>>,
    doubtful: Vec<RangeInclusive<u16>>,
    expected_headers: Vec<(HeaderName, Option<HeaderValue>)>,
    expects_body: Option<ExpectsBody>,
    max_body: usize,
}

/// Decides from a body whether an endpoint is healthy.
type ExpectsBody = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

impl HttpProbe {
    /// Asks for `path` over HTTP/1.1 without TLS, and expects a status from 200 to 299.
    ///
    /// # Panics
    /// If `path` is not a path, with or without a query.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let path = path.parse::<PathAndQuery>().ok().filter(|path| path.as_str().starts_with('/'));
        Self {
            line: Line::new(HttpConnector::new()),
            method: Method::GET,
            path: path.expect("a path begins with a slash"),
            headers: HeaderMap::new(),
            statuses: vec![200..=299],
            doubtful: Vec::new(),
            expected_headers: Vec::new(),
            expects_body: None,
            max_body: MAX_BODY,
        }
    }

    /// Connects as `connector` does: its TLS, its protocol, its authority.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        self.line.connector = connector.for_body();
        self
    }

    /// Sets the authority that the probe names. Default: the connector's, else the endpoint's address.
    ///
    /// # Panics
    /// If `authority` is not `host` or `host:port`.
    #[must_use]
    pub fn host(mut self, authority: &str) -> Self {
        self.line.connector = self.line.connector.authority(authority);
        self
    }

    /// Asks at another port. Default: the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.line.port = Some(port);
        self
    }

    /// Sets the method. Default: `GET`.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Sets which statuses a healthy endpoint answers with. Default: 200 to 299, since a redirect leads
    /// somewhere else.
    #[must_use]
    pub fn expect_status(mut self, statuses: impl RangeBounds<u16>) -> Self {
        self.statuses = vec![closed(&statuses)];
        self
    }

    /// Adds statuses that a healthy endpoint answers with.
    #[must_use]
    pub fn or_status(mut self, statuses: impl RangeBounds<u16>) -> Self {
        self.statuses.push(closed(&statuses));
        self
    }

    /// Adds statuses that count like a missing answer: only several in a row close the endpoint. Default: none.
    ///
    /// For those that pass by themselves, such as 429, or that come from something in between.
    #[must_use]
    pub fn doubt_status(mut self, statuses: impl RangeBounds<u16>) -> Self {
        self.doubtful.push(closed(&statuses));
        self
    }

    /// Expects a header, with this value if one is given.
    #[must_use]
    pub fn expect_header(
        mut self,
        name: HeaderName,
        value: impl Into<Option<HeaderValue>>,
    ) -> Self {
        self.expected_headers.push((name, value.into()));
        self
    }

    /// Expects a text in the body.
    #[must_use]
    pub fn expect_body(self, text: impl Into<String>) -> Self {
        let text: String = text.into();
        self.expect_body_with(move |body| {
            text.is_empty() || body.windows(text.len()).any(|part| part == text.as_bytes())
        })
    }

    /// Expects a body for which `is_healthy` is true. It sees [`max_body`](Self::max_body) bytes at most.
    #[must_use]
    pub fn expect_body_with(
        mut self,
        is_healthy: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.expects_body = Some(Box::new(is_healthy));
        self
    }

    /// Sets how many bytes of a body are read at most. Default: 16 KiB. The probe does not wait for the rest.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Keeps a connection to each endpoint from one probe to the next. Default: false.
    ///
    /// It is closed when a probe fails, and after the connector's idle time.
    #[must_use]
    pub fn keep_connections(mut self, are_kept: bool) -> Self {
        self.line.is_kept = are_kept;
        self
    }

    fn request(&self) -> Request<Whole> {
        let mut request = Request::new(Whole::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn check_head<R>(&self, response: &Response<R>) -> Result<(), BoxError> {
        let status = response.status().as_u16();
        let is_in = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|all| all.contains(&status));
        if is_in(&self.doubtful) {
            return Err(format!("status {status}").into());
        }
        if !is_in(&self.statuses) {
            return Err(NotServing::new(format!("status {status}")).into());
        }
        for (name, expected) in &self.expected_headers {
            let mut values = response.headers().get_all(name).iter();
            if !values.any(|value| expected.as_ref().is_none_or(|expected| expected == value)) {
                let reason = format!("the header `{name}` is not as expected");
                return Err(NotServing::new(reason).into());
            }
        }
        Ok(())
    }
}

impl Probe for HttpProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<(), BoxError> {
        let service = self.line.take(node);
        let response = send_over(&service, self.request()).await?;
        self.check_head(&response)?;
        // Also read if it is not checked: a connection cannot be kept before its answer has ended.
        if self.expects_body.is_some() || self.line.is_kept {
            let (body, is_cut) = read(response.into_body(), self.max_body).await?;
            if self.expects_body.as_ref().is_some_and(|is_healthy| !is_healthy(&body)) {
                return Err(NotServing::new("the body is not as expected").into());
            }
            if is_cut {
                return Ok(());
            }
        }
        self.line.keep(node, service);
        Ok(())
    }
}

fn closed(statuses: &impl RangeBounds<u16>) -> RangeInclusive<u16> {
    let first = match statuses.start_bound() {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let last = match statuses.end_bound() {
        Bound::Included(last) => *last,
        Bound::Excluded(after) => after.saturating_sub(1),
        Bound::Unbounded => u16::MAX,
    };
    first..=last
}

impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("statuses", &self.statuses)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}
