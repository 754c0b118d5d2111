//! How HTTP endpoints are spoken to.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use evenkeel_core::{BoxError, connect::Connect, node::Node};
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

/// What hyper asks of the body of a request.
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
/// The connections of an endpoint go to its address, or where that does not answer to an alternative (RFC 8305),
/// and are closed when it goes. What the request
/// names stays as it is, in `Host`, `:authority` and the TLS server name: the authority of its URI,
/// else its `Host` header, else [`authority`](Self::authority), else the endpoint's address. A URI
/// may be a path alone.
///
/// What a request says to the previous hop alone is left out, and so is what a response says to this one
/// (RFC 9110, section 7.6.1): `Connection` and the fields that it names, `Keep-Alive`, `Transfer-Encoding`, `TE` but for
/// trailers, and `Upgrade` to another version of HTTP. An upgrade to another protocol passes over HTTP/1.1.
/// A message with another transfer coding than `chunked`, or with lengths that differ, is refused: the next hop could
/// see another end of its body.
///
/// By default it speaks HTTP/1.1 without TLS, and whichever of HTTP/2 and HTTP/1.1 the server
/// prefers with it. A request whose URI is `https` goes over TLS, verified by the system's roots;
/// with [`tls`](Self::tls) every request does, whatever its URI.
///
/// A connection that was made on a current-thread runtime serves the callers on that runtime alone, since it stands
/// still while that is not driven; runtimes with threads of their own share theirs. Up to 256 current-thread runtimes
/// keep connections at the same time: of more, those used least recently lose theirs.
///
/// `B` is the type of the bodies that get here, which the compiler finds: write `HttpConnector::new()`. Under retries
/// and hedges it is not the caller's body, but [`ReplayBody`](crate::ReplayBody) of it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use evenkeel_core::{connect::Connect, node::Node};
/// use evenkeel_http::HttpConnector;
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
    idle_max: usize,
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
    /// What is offered in a TLS handshake, best first.
    const fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Negotiated => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
        }
    }
}

impl<B> HttpConnector<B> {
    /// HTTP/1.1, or with TLS what the server prefers.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            protocol: Protocol::Negotiated,
            host: None,
            is_tls_forced: false,
            dial: DialOptions {
                timeout: Duration::from_millis(500),
                keep_alive: Some(Duration::from_secs(5)),
                is_watched: false,
                protocols: Protocol::Negotiated.names(),
                #[cfg(feature = "tls")]
                tls: Arc::new(crate::tls::Connector::new(crate::tls::Tls::system())),
            },
            ping: Some((Duration::from_secs(1), Duration::from_secs(1))),
            idle_max: 256,
            idle_timeout: Duration::from_secs(30),
            stream_window: 2 << 20,
            connection_window: 8 << 20,
        };
        Self { traffic: HttpTraffic::new(), settings: Arc::new(settings), body: PhantomData }
    }

    /// HTTP/2, as gRPC needs it, with or without TLS.
    ///
    /// The outcome is the gRPC status, which comes with the trailers, so a call is in flight until
    /// then. That is [`new`](Self::new) with [`http2`](Self::http2).
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

    /// Speaks HTTP/2 only, without asking, on one connection to each endpoint.
    ///
    /// Requests beyond what the server takes at a time wait for a place on it.
    #[must_use]
    pub fn http2(self) -> Self {
        self.protocol(Protocol::Http2)
    }

    /// Sets the authority of requests that name none. Default the endpoint's address.
    ///
    /// # Panics
    /// If `authority` is not `host` or `host:port`.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.set().host = Some(Host::parse(authority).expect("an authority is host or host:port"));
        self
    }

    /// Makes every connection over TLS, whatever the URI says.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.set().dial.tls = Arc::new(crate::tls::Connector::new(tls));
        self.set().is_tls_forced = true;
        self
    }

    /// Sets until when a request counts as in flight. Default [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.traffic = self.traffic.in_flight(in_flight);
        self
    }

    /// Reads what endpoints report of their load, in any form of ORCA, where a policy goes by it.
    ///
    /// For [`ClientSideWeighted`](evenkeel_core::policy::ClientSideWeighted), and beside probes for
    /// [`Prequal`](evenkeel_core::policy::Prequal). Default reports are not looked for.
    #[cfg(feature = "orca")]
    #[must_use]
    pub fn load_reports(mut self) -> Self {
        self.traffic = self.traffic.load_reports();
        self
    }

    /// Sets for how long at most an endpoint is believed that asks for less traffic. Default 5 minutes.
    ///
    /// See [`HttpTraffic::throttle_max`].
    #[must_use]
    pub fn throttle_max(mut self, throttle_max: Duration) -> Self {
        self.traffic = self.traffic.throttle_max(throttle_max);
        self
    }

    /// Sets what counts as a failure. Default [`StatusClassifier`].
    #[must_use]
    pub fn classify<D: Classify>(self, classifier: D) -> HttpConnector<B, D> {
        HttpConnector {
            traffic: self.traffic.classify(classifier),
            settings: self.settings,
            body: PhantomData,
        }
    }

    /// Sets what requests are hashed by, for a policy that hashes. Default nothing: each goes anywhere.
    ///
    /// A request with a [`HashKey`](crate::HashKey) in its extensions is not asked.
    #[must_use]
    pub fn hash_by(mut self, hash_by: HashBy) -> Self {
        self.traffic = self.traffic.hash_by(hash_by);
        self
    }

    /// Sets how long a connection may take: name, TCP and TLS together. Default 500 ms.
    ///
    /// That is ample inside a data centre and short between continents. A SYN that is lost is sent
    /// again after 1 s, so anything below waits for no second one.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.set().dial.timeout = timeout;
        self
    }

    /// Sets how long a TCP connection may be silent before it is probed. Default 5 s.
    ///
    /// A silent peer gets three probes, a second apart. `None` leaves a connection to a host that is
    /// gone in the pool until a request finds out.
    #[must_use]
    pub fn tcp_keep_alive(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.set().dial.keep_alive = idle.into();
        self
    }

    /// Looks at once whether an endpoint that closes a connection can still be connected to.
    ///
    /// A process that dies closes all its connections, idle ones too. So its death is known some
    /// milliseconds later and not by the next request: it counts as an attempt without an answer, for
    /// [ejection](evenkeel_core::health::outlier) and breakers. A look is a connection without a
    /// request, at most one a second for each endpoint. Default off: servers that close idle connections
    /// see one more for each.
    #[must_use]
    pub fn watch_connections(mut self) -> Self {
        self.set().dial.is_watched = true;
        self
    }

    /// Sets the pings of HTTP/2. Default after 1 s of silence, with 1 s to answer.
    ///
    /// They are sent only while a request is under way and nothing else arrives, so an endpoint that
    /// hangs or vanishes fails its requests after the sum of both. Some gRPC servers allow far fewer
    /// pings and close the connection of a client that exceeds them; over [`http2`](Self::http2)
    /// that endpoint is not pinged again, but requests under way on that connection fail once. Where
    /// streams are silent for long and the servers' limits cannot be raised, choose a longer
    /// `interval`.
    #[must_use]
    pub fn http2_ping(mut self, interval: Duration, timeout: Duration) -> Self {
        self.set().ping = Some((interval, timeout));
        self
    }

    /// Sends no pings: an HTTP/2 connection whose peer hangs is noticed by nobody but the caller.
    #[must_use]
    pub fn without_http2_ping(mut self) -> Self {
        self.set().ping = None;
        self
    }

    /// Sets the flow control windows of HTTP/2 in bytes. Default 2 MiB and 8 MiB.
    ///
    /// They bound what one response, and all of one endpoint, may buffer for slow readers. Small ones
    /// limit throughput to a window per round trip, and a connection that carries many messages of a
    /// few bytes needs a large one: h2 takes frames for an attack by a budget of half that window.
    #[must_use]
    pub fn http2_windows(mut self, stream: u32, connection: u32) -> Self {
        self.set().stream_window = stream;
        self.set().connection_window = connection;
        self
    }

    /// Sets how many idle HTTP/1.1 connections an endpoint keeps, and how long. Default 256, 30 s.
    ///
    /// Fewer than requests at a time means connecting anew under load; longer than the server keeps
    /// them means requests that meet a closed connection, which are tried again if nothing of them
    /// was sent.
    #[must_use]
    pub fn pool(mut self, idle_max: usize, idle_timeout: Duration) -> Self {
        self.set().idle_max = idle_max;
        self.set().idle_timeout = idle_timeout;
        self
    }

    /// The same for bodies of another type, with nobody asking what failed.
    pub(crate) fn for_body<D>(&self) -> HttpConnector<D> {
        let traffic = HttpTraffic::new();
        HttpConnector { traffic, settings: self.settings.clone(), body: PhantomData }
    }

    fn set(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    fn protocol(mut self, protocol: Protocol) -> Self {
        self.set().protocol = protocol;
        self.set().dial.protocols = protocol.names();
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
            .pool_max_idle_per_host(self.idle_max)
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
