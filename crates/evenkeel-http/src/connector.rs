//! Connects to HTTP endpoints.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use evenkeel_core::{BoxError, connect::Connect, node::Node};
use evenkeel_net::Dialer;
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    classify::{Classify, StatusClassifier},
    dial::{Dial, DialOptions},
    hash_by::HashBy,
    multiplexed::Multiplexed,
    service::{HttpService, Pooled, Transport},
    target::Host,
    traffic::{HttpTraffic, InFlight},
};

/// What hyper requires of the body of a request.
pub trait RequestBody:
    Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static + Sized
{
}

impl<B> RequestBody for B
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
}

/// Speaks HTTP to each endpoint, over connections that belong to it alone.
///
/// Connections go to the endpoint's address, or to an alternative if that does not answer (RFC 8305). They
/// are closed when the endpoint leaves. `Host`, `:authority` and the TLS server name stay what the request
/// names: the authority of its URI, else its `Host` header, else [`authority`](Self::authority), else the
/// endpoint's address. A URI may be only a path.
///
/// Fields of a request that are meant for the previous hop are removed, and so are fields of a response that
/// are meant for this one (RFC 9110, section 7.6.1): `Connection` and the fields that it names, `Keep-Alive`,
/// `Transfer-Encoding`, `TE` except for trailers, and `Upgrade` to another version of HTTP. An upgrade to another
/// protocol passes over HTTP/1.1. A message with another transfer coding than `chunked`, or with lengths that
/// differ, is refused, since the next hop could see another end of its body.
///
/// By default it speaks HTTP/1.1 without TLS, and with TLS the server's choice of HTTP/2 and HTTP/1.1. A
/// request with an `https` URI goes over TLS, verified by the system's roots. With [`tls`](Self::tls) every
/// request does, with any URI.
///
/// A connection that was made on a current-thread runtime serves only callers on that runtime, since it makes
/// no progress while that is not driven. Multi-threaded runtimes share their connections. Up to 256
/// current-thread runtimes keep connections at the same time. If there are more, those used least recently
/// lose theirs.
///
/// The compiler infers `B`, the type of the request bodies: write `HttpConnector::new()`. Under retries and
/// hedges it is not the caller's body, but a [`ReplayBody`](crate::ReplayBody) of it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel::core::{connect::Connect, node::Node};
/// use evenkeel::http::HttpConnector;
///
/// let connector: HttpConnector<String> = HttpConnector::new()
///     .authority("orders.internal")
///     .connect_timeout(Duration::from_millis(200));
///
/// let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
/// let service = connector.connect(&node);
/// # drop(service);
/// ```
pub struct HttpConnector<B, C = StatusClassifier> {
    traffic: HttpTraffic<C>,
    settings: Arc<Settings>,
    body: PhantomData<fn(B)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    protocol: Protocol,
    host: Option<Host>,
    is_tls_forced: bool,
    dial: DialOptions,
    ping: Option<(Duration, Duration)>,
    max_idle: usize,
    idle_timeout: Duration,
    stream_window: u32,
    connection_window: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Negotiated,
    Http1,
    Http2,
}

impl Protocol {
    /// The protocols offered in a TLS handshake, best first.
    const fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Negotiated => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
        }
    }
}

impl<B> HttpConnector<B> {
    /// Speaks HTTP/1.1, or with TLS the protocol that the server prefers.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            protocol: Protocol::Negotiated,
            host: None,
            is_tls_forced: false,
            dial: DialOptions {
                dialer: Dialer::new().alpn_protocols(Protocol::Negotiated.names()),
                is_watched: false,
            },
            ping: Some((Duration::from_secs(1), Duration::from_secs(1))),
            max_idle: 256,
            idle_timeout: Duration::from_secs(30),
            stream_window: 2 << 20,
            connection_window: 8 << 20,
        };
        Self { traffic: HttpTraffic::new(), settings: Arc::new(settings), body: PhantomData }
    }

    /// Speaks HTTP/2, as gRPC needs it, with or without TLS.
    ///
    /// The outcome is the gRPC status, which comes with the trailers, so a call is in flight until
    /// then. The same as [`new`](Self::new) with [`http2`](Self::http2).
    #[must_use]
    pub fn grpc() -> Self {
        Self::new().http2()
    }
}

impl<B, C> HttpConnector<B, C> {
    /// Speaks HTTP/1.1 only.
    #[must_use]
    pub fn http1(self) -> Self {
        self.protocol(Protocol::Http1)
    }

    /// Speaks only HTTP/2, with prior knowledge, on one connection to each endpoint.
    ///
    /// Requests above the server's limit of concurrent streams wait for a place on it.
    #[must_use]
    pub fn http2(self) -> Self {
        self.protocol(Protocol::Http2)
    }

    /// Sets the authority of requests that name none. Default: the endpoint's address.
    ///
    /// # Panics
    /// If `authority` is not `host` or `host:port`.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.set().host = Some(Host::parse(authority).expect("an authority is host or host:port"));
        self
    }

    /// Makes every connection over TLS, with any URI.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: evenkeel_net::Tls) -> Self {
        self.set().is_tls_forced = true;
        self.dial(|dialer| dialer.tls(tls))
    }

    /// Sets how long a request counts as in flight. Default: [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.traffic = self.traffic.in_flight(in_flight);
        self
    }

    /// Reads the load that endpoints report, in any form of ORCA, for a policy that uses it.
    ///
    /// For [`ClientSideWeighted`](evenkeel_core::policy::ClientSideWeighted), and beside probes for
    /// [`Prequal`](evenkeel_core::policy::Prequal). Default: off.
    #[cfg(feature = "orca")]
    #[must_use]
    pub fn load_reports(mut self) -> Self {
        self.traffic = self.traffic.load_reports();
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
    pub fn classify<D: Classify>(self, classifier: D) -> HttpConnector<B, D> {
        HttpConnector {
            traffic: self.traffic.classify(classifier),
            settings: self.settings,
            body: PhantomData,
        }
    }

    /// Sets the hash of requests, for a policy that hashes. Default: none, so requests go to any endpoint.
    ///
    /// A [`HashKey`](crate::HashKey) in a request's extensions comes first.
    #[must_use]
    pub fn hash_by(mut self, hash_by: HashBy) -> Self {
        self.traffic = self.traffic.hash_by(hash_by);
        self
    }

    /// Sets how long a connection may take: name, TCP and TLS together. Default: 500 ms.
    ///
    /// That is ample inside a data centre and short between continents. A lost SYN is sent again after
    /// 1 s, so a shorter timeout ends before the second SYN.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.dial(|dialer| dialer.connect_timeout(timeout))
    }

    /// Sets how long a TCP connection may be silent before it is probed. Default: 5 s.
    ///
    /// A silent peer gets three probes, a second apart. With `None`, a connection to a host that is gone
    /// stays in the pool until a request fails on it.
    #[must_use]
    pub fn tcp_keep_alive(self, idle: impl Into<Option<Duration>>) -> Self {
        self.dial(|dialer| dialer.tcp_keep_alive(idle))
    }

    /// When an endpoint closes a connection, checks at once whether it still accepts one.
    ///
    /// A process that dies closes all its connections, including idle ones. So its death is noticed some
    /// milliseconds later, and not by the next request. It counts as an attempt without an answer, for
    /// [ejection](evenkeel_core::health::outlier) and breakers. The check is a connection without a
    /// request, at most one a second for each endpoint. Default: off, since servers that close idle
    /// connections get another connection for each.
    #[must_use]
    pub fn watch_connections(mut self) -> Self {
        self.set().dial.is_watched = true;
        self
    }

    /// Sets the pings of HTTP/2. Default: a ping after 1 s of silence, with 1 s to answer.
    ///
    /// Pings are sent only while a request is in flight and nothing else arrives. If an endpoint hangs or
    /// vanishes, its requests fail after the sum of both. Some gRPC servers allow far fewer pings and
    /// close the connection of a client that exceeds them. Over [`http2`](Self::http2) that endpoint is not
    /// pinged again, but requests in flight on that connection fail once. If streams are silent for long
    /// and the servers' limits cannot be raised, choose a longer `interval`.
    #[must_use]
    pub fn http2_ping(mut self, interval: Duration, timeout: Duration) -> Self {
        self.set().ping = Some((interval, timeout));
        self
    }

    /// Sends no pings: only the caller notices when the peer of an HTTP/2 connection hangs.
    #[must_use]
    pub fn without_http2_ping(mut self) -> Self {
        self.set().ping = None;
        self
    }

    /// Sets the flow control windows of HTTP/2 in bytes. Default: 2 MiB and 8 MiB.
    ///
    /// They bound what one response, and all responses of one endpoint, may buffer for slow readers.
    /// Small windows limit throughput to a window per round trip. A connection with many messages of a
    /// few bytes needs a large window: h2's budget for frames, above which it sees an attack, is half of it.
    #[must_use]
    pub fn http2_windows(mut self, stream: u32, connection: u32) -> Self {
        self.set().stream_window = stream;
        self.set().connection_window = connection;
        self
    }

    /// Sets how many idle HTTP/1.1 connections an endpoint keeps, and for how long. Default: 256, 30 s.
    ///
    /// If fewer are kept than there are concurrent requests, new connections are made under load. If they
    /// are kept longer than the server keeps them, requests meet closed connections. Those are sent again
    /// if no part of them was sent.
    #[must_use]
    pub fn pool(mut self, max_idle: usize, idle_timeout: Duration) -> Self {
        self.set().max_idle = max_idle;
        self.set().idle_timeout = idle_timeout;
        self
    }

    /// The same for bodies of another type, with the default classifier.
    pub(crate) fn for_body<D>(&self) -> HttpConnector<D> {
        let traffic = HttpTraffic::new();
        HttpConnector { traffic, settings: self.settings.clone(), body: PhantomData }
    }

    fn set(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    fn protocol(mut self, protocol: Protocol) -> Self {
        self.set().protocol = protocol;
        self.dial(|dialer| dialer.alpn_protocols(protocol.names()))
    }

    fn dial(mut self, change: impl FnOnce(Dialer) -> Dialer) -> Self {
        let dial = &mut self.set().dial;
        dial.dialer = change(dial.dialer.clone());
        self
    }
}

impl Settings {
    /// A pool of connections to one node.
    pub(crate) fn pooled<B: RequestBody>(&self, node: Arc<Node>) -> Client<Dial, B> {
        let dial = Dial::new(node, self.dial.clone());
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            // Without its own timer the pool never closes an idle connection.
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle_timeout)
            .pool_max_idle_per_host(self.max_idle)
            .http2_initial_stream_window_size(self.stream_window)
            .http2_initial_connection_window_size(self.connection_window);
        if let Some((interval, timeout)) = self.ping {
            builder.http2_keep_alive_interval(interval).http2_keep_alive_timeout(timeout);
        }
        builder.build(dial)
    }

    fn multiplexed<B: RequestBody>(&self, dial: Dial) -> Multiplexed<B> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window);
        if let Some((interval, timeout)) = self.ping {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        Multiplexed::new(dial, builder)
    }
}

impl<B: RequestBody, C: Clone> Connect for HttpConnector<B, C> {
    type Service = HttpService<B>;
    type Traffic = HttpTraffic<C>;

    fn connect(&self, node: &Arc<Node>) -> HttpService<B> {
        let settings = &self.settings;
        let host = settings.host.clone().unwrap_or_else(|| Host::of(node.address()));
        let transport = match settings.protocol {
            Protocol::Http2 => {
                let dial = Dial::new(node.clone(), settings.dial.clone());
                Transport::Multiplexed(Arc::new(settings.multiplexed(dial)))
            }
            Protocol::Negotiated | Protocol::Http1 => {
                Transport::Pooled(Pooled::new(settings.clone()))
            }
        };
        HttpService::new(node.clone(), host, settings.is_tls_forced, transport)
    }

    fn traffic(&self) -> HttpTraffic<C> {
        self.traffic.clone()
    }
}

impl<B> Default for HttpConnector<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, C: Clone> Clone for HttpConnector<B, C> {
    fn clone(&self) -> Self {
        Self { traffic: self.traffic.clone(), settings: self.settings.clone(), body: PhantomData }
    }
}

impl<B, C: fmt::Debug> fmt::Debug for HttpConnector<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnector")
            .field("settings", &self.settings)
            .field("traffic", &self.traffic)
            .finish()
    }
}
