//! A server that stops without losing a request.

mod accept;
mod connection;
mod entries;
mod heads;
mod layer;
mod report;
mod signals;
mod state;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_core::{BoxError, deregister::Deregister};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{net::TcpListener, time::timeout};
use tower_service::Service;

use self::{
    accept::Server,
    entries::{Leave, take_out},
    signals::Signals,
    state::{Shared, TARGET},
};
pub use self::{
    layer::{DrainBody, DrainFuture, DrainLayer, DrainService, Readiness},
    report::{Deregistered, DrainReport},
    state::{DrainHandle, Phase},
};

/// Stops a server in steps, so that its callers do not notice.
///
/// 1. It says that it is [not ready](Self::readiness), and goes on serving all requests.
/// 2. It [deregisters](Self::deregister).
/// 3. It [waits](Self::wait) until its callers can have seen that. In each HTTP/1.1 response it asks the
///    caller to make its next request elsewhere (`Connection: close`).
/// 4. It takes no new connections and closes idle ones. Over HTTP/2 it sends `GOAWAY`, in two steps,
///    so that requests already on the way are still served. Over HTTP/1.1 a request's head that has partly
///    arrived may become complete. A connection that its peer does not use [is closed](Self::max_idle).
/// 5. It waits for what is in flight, including WebSockets and other upgraded connections, up to a
///    [bound](Self::grace), and cuts the rest.
/// 6. It reports.
///
/// Each step is a tracing event of `evenkeel::drain`. What was cut is a warning and a metric.
///
/// Nothing that reaches the service is refused before the cut: new connections are refused by the
/// system, new streams by the second `GOAWAY`, which tells the caller that they were not processed.
///
/// **Use it** for every server that callers find through a registry, a load balancer or DNS. **Not**
/// below a proxy that drains by itself.
///
/// Two lines around an axum router, or any service of `http` requests:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use evenkeel::http::Drain;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel::core::BoxError> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let app = Router::new().route("/", get(|| async { "hello" }));
///
/// let drain = Drain::new().signals();
/// # let drain = drain.wait(Duration::ZERO);
/// let app = app.route_service("/ready", drain.readiness());
/// # drain.handle().start();
/// let report = drain.serve(listener, app).await?; // until SIGTERM or SIGINT, and then some
/// assert_eq!(report.requests_cut, 0);
/// # Ok(())
/// # }
/// ```
///
/// Configured, around an existing server, here axum's. For tonic's server, pass `drain.closing()` to
/// `serve_with_shutdown`:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use evenkeel::http::{Deregistered, Drain};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel::core::BoxError> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let drain = Drain::new()
///     .deregister(|| async { Ok(()) }) // tell the registry
///     .deregister_timeout(Duration::from_secs(2))
///     .wait(Duration::from_secs(10))
///     .grace(Duration::from_secs(20));
/// # let drain = drain.wait(Duration::ZERO);
/// let app = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .route_service("/ready", drain.readiness())
///     .layer(drain.layer());
/// let server = axum::serve(listener, app).with_graceful_shutdown(drain.closing());
/// # drain.handle().start();
/// let report = drain.run(server).await?;
/// assert_eq!(report.deregistered, Deregistered::Done);
/// # Ok(())
/// # }
/// ```
///
/// Axum and tonic run connections in their own tasks. Neither the cut nor [`max_idle`](Self::max_idle)
/// reaches those; they end with the runtime. [`serve`](Self::serve) cuts them.
pub struct Drain {
    shared: Arc<Shared>,
    deregister: Vec<Leave>,
    deregister_timeout: Duration,
    wait: Duration,
    grace: Duration,
    max_idle: Duration,
    has_signals: bool,
}

impl Drain {
    /// A drain that begins when its [handle](Self::handle) says so.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            deregister: vec![],
            deregister_timeout: Duration::from_secs(5),
            wait: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            max_idle: Duration::from_secs(5),
            has_signals: false,
        }
    }

    /// Also begins at SIGTERM or SIGINT (outside Unix: at Ctrl-C). Default: off.
    ///
    /// A SIGINT during the drain, such as a second Ctrl-C, interrupts it: what is in flight is cut and
    /// reported at once.
    #[must_use]
    pub fn signals(mut self) -> Self {
        self.has_signals = true;
        self
    }

    /// Adds a function that removes the server from a registry. Default: none.
    ///
    /// If it fails or takes too long, the drain goes on, and the report says so. Several functions begin in
    /// the order in which they were added, and none waits for another.
    #[must_use]
    pub fn deregister<F, T>(mut self, deregister: F) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.deregister.push(Box::new(|| Box::pin(deregister())));
        self
    }

    /// Adds the server's own entry in a registry. It is removed first. [`wait`](Self::wait) is set to the
    /// time that callers need to see that. Default: none.
    ///
    /// Several entries, such as two names or two registries during a migration, stay until the drain begins
    /// and are removed together. The wait is then the longest of theirs.
    ///
    /// `register::Registered` of evenkeel-discovery is such an entry. It enters the server once that listens,
    /// and the drain removes it, so registration takes two lines:
    ///
    /// ```
    /// # use std::{future::{Future, ready}, pin::Pin, time::Duration};
    /// # use axum::{Router, routing::get};
    /// # use evenkeel::core::{BoxError, deregister::Deregister};
    /// use evenkeel::http::Drain;
    ///
    /// # struct Registered;
    /// # impl Deregister for Registered {
    /// #     fn deregister(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
    /// #         Box::pin(ready(Ok(())))
    /// #     }
    /// #     fn propagation(&self) -> Duration { Duration::ZERO }
    /// # }
    /// # fn enter() -> Registered { Registered }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let app = Router::new().route("/", get(|| async { "hello" }));
    ///
    /// let registered = enter(); // Registration::new(ConsulRegistry::new(agents), entry).start()
    /// let drain = Drain::new().signals().registered(registered);
    /// # drain.handle().start();
    /// drain.serve(listener, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn registered(self, entry: impl Deregister) -> Self {
        let own = entry.propagation();
        // Without an entry the wait is a guess. The first entry replaces it.
        let wait = if self.deregister.is_empty() { own } else { own.max(self.wait) };
        self.deregister(move || Box::new(entry).deregister()).wait(wait)
    }

    /// Sets how long deregistering may take, for each entry. Default: 5 seconds.
    #[must_use]
    pub fn deregister_timeout(mut self, max: Duration) -> Self {
        self.deregister_timeout = max;
        self
    }

    /// Sets how long the server goes on serving after it deregistered. Default: 5 seconds.
    ///
    /// It must be longer than all callers need to see the change: the interval at which they ask the
    /// registry or the readiness check, or the time to live of DNS. If it is too short, some callers are
    /// refused a connection.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets how long the drain waits for what is in flight. Default: 30 seconds.
    ///
    /// The sum of this and [`wait`](Self::wait) should be less than the supervisor grants (Kubernetes: 30
    /// seconds in all). Otherwise the supervisor kills the server during the drain.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how long a peer may keep a connection without a request in flight, once the server closes.
    /// Default: 5 seconds, as in Go's `net/http` and in grpc-go.
    ///
    /// Within that time the peer must complete a request's head, send an HTTP/2 preface, or acknowledge a
    /// `GOAWAY`. Less than a round trip cuts requests that are on the way. An incomplete head that is cut
    /// counts among [`requests_cut`](DrainReport::requests_cut).
    #[must_use]
    pub fn max_idle(mut self, max: Duration) -> Self {
        self.max_idle = max;
        self
    }

    /// A handle that begins the drain and watches it.
    #[must_use]
    pub fn handle(&self) -> DrainHandle {
        DrainHandle(self.shared.clone())
    }

    /// A service that answers readiness checks.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.shared.clone())
    }

    /// A layer that counts the requests of a server that is [run](Self::run). [`serve`](Self::serve) adds it.
    #[must_use]
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(self.shared.clone())
    }

    /// Completes when a server has to close: for `with_graceful_shutdown` and similar functions.
    pub fn closing(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let handle = self.handle();
        async move { handle.reached(Phase::Closing).await }
    }

    /// Serves HTTP/1.1 and HTTP/2 until the drain has ended.
    ///
    /// # Errors
    /// If it cannot listen for the signals.
    pub async fn serve<S, B>(
        self,
        listener: TcpListener,
        service: S,
    ) -> Result<DrainReport, BoxError>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let server = Server::new(listener, service, self.handle(), self.max_idle);
        self.run(server.run()).await
    }

    /// Runs a server until the drain has ended.
    ///
    /// # Errors
    /// The error of the server, or if it cannot listen for the signals.
    pub async fn run<F, E>(mut self, server: F) -> Result<DrainReport, BoxError>
    where
        F: IntoFuture<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let handle = self.handle();
        let mut signals = Signals::new(self.has_signals)?;
        let mut server = pin!(server.into_future());
        let deregistered = tokio::select! {
            ended = &mut server => {
                ended.map_err(Into::into)?;
                return Ok(DrainReport::default());
            }
            deregistered = self.leave(&mut signals) => deregistered,
        };
        self.shared.advance(Phase::Closing);
        let in_flight = handle.in_flight();
        let ended = tokio::select! {
            ended = timeout(self.grace, handle.idle_after(server.as_mut())) => ended.ok(),
            () = signals.impatience() => None,
        };
        // Read before the server and its connections are dropped, or nothing would be in flight.
        let [half_heads, tails] = [&self.shared.half_heads, &self.shared.tails]
            .map(|count| count.load(Ordering::Acquire));
        let requests_cut = handle.in_flight() + half_heads + tails;
        if 0 < requests_cut {
            evenkeel_metrics::count_drain_cut(requests_cut as u64);
            tracing::warn!(target: TARGET, requests_cut, grace = ?self.grace, "requests were cut");
        }
        self.shared.advance(Phase::Ended);
        let is_in_time = ended.is_some();
        ended.unwrap_or(Ok(())).map_err(Into::into)?;
        Ok(DrainReport { deregistered, in_flight, requests_cut, is_in_time })
    }

    /// All steps before the server closes.
    async fn leave(&mut self, signals: &mut Signals) -> Deregistered {
        let handle = self.handle();
        tokio::select! {
            // In this order: a signal interrupts what has begun already.
            biased;
            () = handle.reached(Phase::NotReady) => {}
            () = signals.begin() => handle.start(),
        }
        let mut deregistered = Deregistered::Interrupted;
        tokio::select! {
            () = self.announce(&mut deregistered) => {}
            () = signals.impatience() => tracing::warn!(target: TARGET, "interrupted again"),
        }
        deregistered
    }

    /// Tells callers that the server leaves, and waits until they can have seen that.
    async fn announce(&mut self, deregistered: &mut Deregistered) {
        *deregistered =
            take_out(std::mem::take(&mut self.deregister), self.deregister_timeout).await;
        self.shared.advance(Phase::Waiting);
        tokio::time::sleep(self.wait).await;
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("phase", &self.handle().phase())
            .field("wait", &self.wait)
            .field("grace", &self.grace)
            .field("max_idle", &self.max_idle)
            .finish_non_exhaustive()
    }
}
