//! A probe that asks gRPC's health service.

use std::sync::Arc;

use evenkeel_core::{
    BoxError,
    connect::Connect,
    health::check::{News, NotServing, Probe},
    node::Node,
};
use futures_util::stream::unfold;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::{
    body::{Whole, frame},
    line::{Line, apart, send_over},
    message::{self, MAX_MESSAGE},
};
use crate::{classify::grpc_status, connector::HttpConnector, service::HttpService};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

/// Asks an endpoint for its health by `grpc.health.v1.Health`, once or by a stream.
///
/// | answer to `Check` | the endpoint |
/// |---|---|
/// | `SERVING` | is healthy |
/// | any other serving status, or `NOT_FOUND` | says that it is not healthy, and is closed at once |
/// | `UNIMPLEMENTED` | is healthy (gRFC A17): it answers, but does not report its health |
/// | any other status, or none | has failed a probe |
///
/// With [`watch`](Self::watch) a stream to each endpoint stays open, on which the endpoint reports changes at
/// once. `Check` continues beside it, because a process that hangs sends no news. If `Watch` is not implemented
/// or the stream breaks, it is tried again with growing delays. A stream that breaks triggers a `Check`.
///
/// Each `Check` makes its own connection: see [`HttpProbe`](crate::HttpProbe) for the reason, and for how to
/// avoid it.
///
/// ```
/// use evenkeel::http::GrpcProbe;
///
/// let probe = GrpcProbe::new().service("orders.v1.Orders").watch();
/// # drop(probe);
/// ```
#[derive(Debug)]
pub struct GrpcProbe {
    line: Line,
    service: String,
    is_watching: bool,
}

impl Default for GrpcProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl GrpcProbe {
    /// Asks for the health of the whole server, over HTTP/2 without TLS.
    #[must_use]
    pub fn new() -> Self {
        let line = Line::new(HttpConnector::new().http2());
        Self { line, service: String::new(), is_watching: false }
    }

    /// Asks for the health of one service, by its full name. Default: that of the whole server.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Also follows the health of each endpoint on a stream that stays open. Default: off.
    ///
    /// That is one connection from each client process to each endpoint. It sends no pings, since many gRPC
    /// servers object to them.
    #[must_use]
    pub fn watch(mut self) -> Self {
        self.is_watching = true;
        self
    }

    /// Connects as `connector` does, but always over HTTP/2.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        self.line.connector = connector.for_body().http2();
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

    /// Keeps a connection to each endpoint from one `Check` to the next. Default: false.
    #[must_use]
    pub fn keep_connections(mut self, are_kept: bool) -> Self {
        self.line.is_kept = are_kept;
        self
    }

    fn request(&self, path: &'static str) -> Request<Whole> {
        let mut request = Request::new(Whole::new(message::request(&self.service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        request
    }
}

impl Probe for GrpcProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<(), BoxError> {
        let service = self.line.take(node);
        let response = send_over(&service, self.request(CHECK)).await?;
        let (status, message) = answer(response).await?;
        match status {
            OK => message::health(&message.ok_or("an answer without a message")?)?,
            UNIMPLEMENTED => {}
            NOT_FOUND => return Err(NotServing::new("it does not know the service").into()),
            other => return Err(format!("grpc-status {other}").into()),
        }
        self.line.keep(node, service);
        Ok(())
    }

    fn follow(&self, node: &Arc<Node>) -> Option<News> {
        self.is_watching.then(|| {
            let connector = self.line.connector.clone().without_http2_ping();
            let service = connector.connect(&apart(node, self.line.port));
            let watching = Watching::Asking(service, self.request(WATCH));
            Box::pin(unfold(watching, next)) as News
        })
    }
}

/// The status of a call, and its first message.
pub(super) async fn answer(
    response: Response<Incoming>,
) -> Result<(u32, Option<Vec<u8>>), BoxError> {
    check_head(&response)?;
    if let Some(status) = grpc_status(response.headers()) {
        return Ok((status, None));
    }
    let mut body = response.into_body();
    let (mut arrived, mut message) = (Vec::new(), None);
    while let Some(frame) = frame(&mut body).await {
        match frame?.into_data() {
            Ok(data) => {
                arrived.extend_from_slice(&data);
                message = message.or(message::take(&mut arrived, MAX_MESSAGE)?);
            }
            Err(frame) => {
                let status = |trailers: HeaderMap| grpc_status(&trailers);
                let status = frame.into_trailers().ok().and_then(status);
                return Ok((status.ok_or("no grpc-status")?, message));
            }
        }
    }
    Err("no grpc-status".into())
}

fn check_head<R>(response: &Response<R>) -> Result<(), BoxError> {
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("HTTP status {} in place of an answer", status.as_u16()).into()),
    }
}

/// A stream of health. Its connection ends with its service.
enum Watching {
    Asking(HttpService<Whole>, Request<Whole>),
    Listening(HttpService<Whole>, Incoming, Vec<u8>),
}

/// The next message, or `None` if the stream ends, breaks, or could not be opened.
async fn next(watching: Watching) -> Option<(Result<(), BoxError>, Watching)> {
    let (service, mut body, mut arrived) = match watching {
        Watching::Asking(service, request) => {
            let response = send_over(&service, request).await.ok()?;
            check_head(&response).ok()?;
            (service, response.into_body(), Vec::new())
        }
        Watching::Listening(service, body, arrived) => (service, body, arrived),
    };
    loop {
        if let Some(message) = message::take(&mut arrived, MAX_MESSAGE).ok()? {
            let health = message::health(&message);
            return Some((health, Watching::Listening(service, body, arrived)));
        }
        if let Ok(data) = frame(&mut body).await?.ok()?.into_data() {
            arrived.extend_from_slice(&data);
        }
    }
}
