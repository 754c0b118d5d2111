//! Reports out of band: the client's half of `OpenRcaService`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    connect::Connect,
    node::{Gate, Node},
    rng::Rng,
};
use http::{HeaderValue, Method, Request, Uri, header};
use prost::Message;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tower_layer::Layer;

use super::{
    ReportForm,
    proto::{OrcaLoadReportRequest, ReportInterval},
    stream::STREAM,
};
use crate::{
    classify::grpc_status,
    clock,
    connector::HttpConnector,
    probe::{Line, Whole, frame, send_over, take_message},
};

/// The most bytes of a report.
const MAX_REPORT: usize = 64 << 10;

/// The status of a server without this service. It is not asked again.
const UNIMPLEMENTED: u32 = 12;

/// Has endpoints report their load beside requests, by ORCA's `OpenRcaService`.
///
/// It stands below a balancer with a policy that uses reports, such as
/// [`ClientSideWeighted`](evenkeel_core::policy::ClientSideWeighted). It keeps one stream to each endpoint, on a
/// separate connection. **Use it** if requests are long or few, so that reports on responses are rare or old.
/// Otherwise have responses carry the reports, which costs no connection. A server that does not implement the
/// service is asked once.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::endpoint::Endpoint;
/// use evenkeel::http::{HttpConnector, OrcaLayer};
/// use evenkeel::balance::BalanceLayer;
/// use tower::ServiceBuilder;
///
/// let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse().unwrap()];
/// let client = ServiceBuilder::new()
///     .layer(BalanceLayer::client_side_weighted_round_robin(endpoints))
///     .layer(OrcaLayer::new().interval(Duration::from_secs(5)))
///     .service(HttpConnector::<String>::grpc());
/// # drop(client);
/// ```
pub struct OrcaLayer {
    line: Arc<Line>,
    interval: Duration,
}

impl OrcaLayer {
    /// Asks for a report every 10 seconds, over HTTP/2 without TLS.
    #[must_use]
    pub fn new() -> Self {
        let line = Line::new(HttpConnector::new().http2().without_http2_ping());
        Self { line: Arc::new(line), interval: Duration::from_secs(10) }
    }

    /// Sets how often a server is asked to report. Default: 10 seconds. Servers have their own minimum.
    ///
    /// A stream that is silent for three intervals and a second is opened again.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        assert!(Duration::ZERO < interval, "reports in no time");
        self.interval = interval;
        self
    }

    /// Connects as `connector` does, but always over HTTP/2.
    #[must_use]
    pub fn connector<B, C>(mut self, connector: &HttpConnector<B, C>) -> Self {
        let connector = connector.for_body().http2().without_http2_ping();
        self.line = Arc::new(Line::new(connector));
        self
    }
}

impl Default for OrcaLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Layer<C> for OrcaLayer {
    type Service = OrcaConnect<C>;

    fn layer(&self, inner: C) -> OrcaConnect<C> {
        let (line, interval) = (self.line.clone(), self.interval);
        OrcaConnect { inner, line, interval, streams: Mutex::default() }
    }
}

/// Connects, and has endpoints report. See [`OrcaLayer`].
pub struct OrcaConnect<C> {
    inner: C,
    line: Arc<Line>,
    interval: Duration,
    /// By node id, one for each node. They end when this is dropped.
    streams: Mutex<HashMap<u64, AbortHandle>>,
}

impl<C: Connect> Connect for OrcaConnect<C> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        if let Ok(runtime) = Handle::try_current() {
            let mut streams = self.streams.lock().expect("no panic under the lock");
            streams.retain(|_, stream| !stream.is_finished());
            // Another service for the same node changes nothing.
            streams.entry(node.id()).or_insert_with(|| {
                let follow = follow(Arc::downgrade(node), self.line.clone(), self.interval);
                runtime.spawn(follow).abort_handle()
            });
        }
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

impl<C> Drop for OrcaConnect<C> {
    fn drop(&mut self) {
        let streams = self.streams.get_mut().expect("no panic under the lock");
        streams.values().for_each(AbortHandle::abort);
    }
}

/// Why a stream has ended.
enum Ended {
    /// The node has left, or its server does not report.
    ForGood,
    /// It may be opened again. Says whether there was any report.
    Broke { has_worked: bool },
}

async fn follow(node: Weak<Node>, line: Arc<Line>, interval: Duration) {
    // As for gRPC's connections and its health watch (gRFC A17).
    let backoff = Backoff::grpc(Duration::from_secs(1), 1.6, Duration::from_secs(120));
    let mut rng = Rng::from_entropy();
    let mut tries = 0;
    loop {
        match listen(&node, &line, interval).await {
            Ok(Ended::ForGood) => return,
            Ok(Ended::Broke { has_worked: true }) => tries = 0,
            Ok(Ended::Broke { has_worked: false }) | Err(_) => tries += 1,
        }
        sleep(backoff.delay(tries, &mut rng)).await;
    }
}

/// Reads one stream to its end.
async fn listen(node: &Weak<Node>, line: &Line, interval: Duration) -> Result<Ended, BoxError> {
    let Some(current) = present(node) else { return Ok(Ended::ForGood) };
    let service = line.fresh(&current);
    drop(current);
    let max_silence = interval * 3 + Duration::from_secs(1);
    let response = timeout(max_silence, send_over(&service, request(interval))).await??;
    if grpc_status(response.headers()) == Some(UNIMPLEMENTED) {
        return Ok(Ended::ForGood);
    }
    if !response.status().is_success() {
        return Err(format!("HTTP status {}", response.status().as_u16()).into());
    }
    let (mut body, mut arrived, mut has_worked) = (response.into_body(), Vec::new(), false);
    while let Some(frame) = timeout(max_silence, frame(&mut body)).await? {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let status = frame.trailers_ref().and_then(grpc_status);
                let is_over = status == Some(UNIMPLEMENTED);
                return Ok(if is_over { Ended::ForGood } else { Ended::Broke { has_worked } });
            }
        };
        arrived.extend_from_slice(&data);
        while let Some(message) = take_message(&mut arrived, MAX_REPORT)? {
            let Some(node) = present(node) else { return Ok(Ended::ForGood) };
            node.report_load(&ReportForm::Binary.read(&message)?, clock::now());
            has_worked = true;
        }
    }
    Ok(Ended::Broke { has_worked })
}

/// The node, or `None` if it has left.
fn present(node: &Weak<Node>) -> Option<Arc<Node>> {
    node.upgrade().filter(|node| !node.is_closed_by(Gate::Retired))
}

fn request(interval: Duration) -> Request<Whole> {
    let seconds = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
    let nanos = interval.subsec_nanos() as i32;
    let report_interval = Some(ReportInterval { seconds, nanos });
    let message = OrcaLoadReportRequest { report_interval, request_cost_names: Vec::new() };
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("some bytes");
    let frame = [&[0][..], &length.to_be_bytes(), &message].concat();
    let mut request = Request::new(Whole::new(frame));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(STREAM);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

impl fmt::Debug for OrcaLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrcaLayer").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl<C: fmt::Debug> fmt::Debug for OrcaConnect<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrcaConnect").field("inner", &self.inner).finish_non_exhaustive()
    }
}
