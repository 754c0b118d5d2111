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
    message::{self, MESSAGE_MAX},
};
use crate::{classify::grpc_status, connector::HttpConnector, service::HttpService};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

/// Asks an endpoint by `grpc.health.v1.Health`, and follows what that says if told to.
///
/// | answer to `Check` | the endpoint |
/// |---|---|
/// | `SERVING` | is healthy |
/// | any other serving status, or `NOT_FOUND` | says that it is not, and is closed at once |
/// | `UNIMPLEMENTED` | is healthy (gRFC A17): it answers, and has nothing to say of its health |
/// | any other status, or none | has failed a probe |
///
/// With [`watch`](Self::watch) a stream to each endpoint stays open on which it tells of changes at once.
/// `Check` goes on beside that, because a process that hangs sends no news. Where `Watch` is not implemented,
/// or the stream breaks, it is tried again with growing delays; a stream that breaks is a reason for a `Check`.
///
/// Each `Check` makes a connection of its own: see [`HttpProbe`](crate::HttpProbe) for why, and for the way
/// around it.
///
/// ```
/// use evenkeel_http::GrpcProbe;
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

    /// Asks for the health of one service, by its full name. Default that of the whole server.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Follows what each endpoint says, on a stream that stays open. Default only asks.
    ///
    /// That is one connection to each endpoint in each client process, without pings, which many gRPC
    /// servers take ill.
    #[must_use]
    pub fn watch(mut self) -> Self {
        self.is_watching = true;
        self
    }

    /// Connects as `connector` does, over HTTP/2 whatever it speaks otherwise.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        self.line.connector = connector.for_body().http2();
        self
    }

    /// Sets the authority that the probe names. Default the connector's, else the endpoint's address.
    ///
    /// # Panics
    /// If `authority` is not `host` or `host:port`.
    #[must_use]
    pub fn host(mut self, authority: &str) -> Self {
        self.line.connector = self.line.connector.authority(authority);
        self
    }

    /// Asks at another port. Default the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.line.port = Some(port);
        self
    }

    /// Keeps a connection to each endpoint from one `Check` to the next. Default false.
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
                message = message.or(message::take(&mut arrived, MESSAGE_MAX)?);
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

/// The next that is said; the end where the stream ends, breaks, or never was one.
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
        if let Some(message) = message::take(&mut arrived, MESSAGE_MAX).ok()? {
            let health = message::health(&message);
            return Some((health, Watching::Listening(service, body, arrived)));
        }
        if let Ok(data) = frame(&mut body).await?.ok()?.into_data() {
            arrived.extend_from_slice(&data);
        }
    }
}
