//! A server that stops without losing a request.

mod accept;
mod layer;
mod state;

use std::{
    error::Error,
    fmt,
    future::{Future, IntoFuture},
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use evenkeel_core::{BoxError, deregister::Deregister};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{net::TcpListener, time::timeout};
use tower_layer::Layer;
use tower_service::Service;

use self::{
    accept::Server,
    state::{Shared, TARGET},
};
pub use self::{
    layer::{DrainBody, DrainFuture, DrainLayer, DrainService, Readiness},
    state::{DrainHandle, Phase},
};

/// Stops a server in the order in which nobody notices.
///
/// 1. It says that it is [not ready](Self::readiness), and goes on serving all that comes.
/// 2. It [deregisters](Self::deregister).
/// 3. It [waits](Self::wait) until its callers can have seen that, and asks those over HTTP/1.1 with
///    each response to make their next request elsewhere (`Connection: close`).
/// 4. It takes no new connections and closes idle ones. Over HTTP/2 it sends `GOAWAY`, in two steps,
///    so that what crosses it on the way is still served.
/// 5. It waits for what is under way, WebSockets and other upgraded connections among it, up to a
///    [bound](Self::grace), and cuts the rest.
/// 6. It reports.
///
/// Each step is a tracing event of `evenkeel::drain`, and what was cut a warning and a metric.
///
/// Nothing that reaches the service is refused before the cut: new connections are refused by the
/// system, new streams by the second `GOAWAY`, which tells the caller that they were not processed.
///
/// **Use it** for every server whose callers find it through a registry, a load balancer or DNS. **Not**
/// below a proxy that drains by itself.
///
/// Two lines around an axum router, or any service of `http` requests:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use evenkeel_http::Drain;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel_core::BoxError> {
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
/// Configured, around a server that one has, here axum's; tonic's takes `drain.closing()` in
/// `serve_with_shutdown`:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use evenkeel_http::{Deregistered, Drain};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel_core::BoxError> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let drain = Drain::new()
///     .deregister(|| async { Ok(()) }) // tell the registry
///     .deregister_max(Duration::from_secs(2))
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
/// Axum and tonic leave connections to tasks of their own, which the cut does not reach; they end with
/// the runtime. [`serve`](Self::serve) cuts them.
pub struct Drain {
    shared: Arc<Shared>,
    deregister: Option<Leave>,
    deregister_max: Duration,
    wait: Duration,
    grace: Duration,
    has_signals: bool,
}

type Leave = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send>;

impl Drain {
    /// Begins when its [handle](Self::handle) is told to.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            deregister: None,
            deregister_max: Duration::from_secs(5),
            wait: Duration::from_secs(5),
            grace: Duration::from_secs(30),
            has_signals: false,
        }
    }

    /// Begins at SIGTERM or SIGINT as well (elsewhere than on Unix, at Ctrl-C). Default it does not.
    #[must_use]
    pub fn signals(mut self) -> Self {
        self.has_signals = true;
        self
    }

    /// Sets what takes the server out of its registry. Default nothing.
    ///
    /// If it fails or takes too long, the drain goes on, and the report says so.
    #[must_use]
    pub fn deregister<F, T>(mut self, deregister: F) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.deregister = Some(Box::new(|| Box::pin(deregister())));
        self
    }

    /// Sets the server's own entry in a registry: it is taken out first, and callers are given the time
    /// that they need to see that ([`wait`](Self::wait) is set to it). Default none.
    ///
    /// `register::Registered` of evenkeel-discovery is one. It enters the server when that listens, and
    /// this takes it out, so that registration is two lines:
    ///
    /// ```
    /// # use std::{future::{Future, ready}, pin::Pin, time::Duration};
    /// # use axum::{Router, routing::get};
    /// # use evenkeel_core::{BoxError, deregister::Deregister};
    /// use evenkeel_http::Drain;
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
        let wait = entry.propagation();
        self.deregister(move || Box::new(entry).deregister()).wait(wait)
    }

    /// Sets how long deregistering may take. Default 5 seconds.
    #[must_use]
    pub fn deregister_max(mut self, max: Duration) -> Self {
        self.deregister_max = max;
        self
    }

    /// Sets how long it goes on serving after it deregistered. Default 5 seconds.
    ///
    /// It must be longer than it takes until all callers have seen it: the interval at which they ask the
    /// registry or the readiness check, the time to live of DNS. Too short, and some connect to a
    /// closed door.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets how long it waits for what is under way. Default 30 seconds.
    ///
    /// With the time that it waits before it should be less than what the supervisor grants (Kubernetes:
    /// 30 seconds in all), or that kills it in the middle.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What begins the drain, and watches it.
    #[must_use]
    pub fn handle(&self) -> DrainHandle {
        DrainHandle(self.shared.clone())
    }

    /// What answers a readiness check.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.shared.clone())
    }

    /// What counts the requests of a server that is [run](Self::run). [`serve`](Self::serve) brings it.
    #[must_use]
    pub fn layer(&self) -> DrainLayer {
        DrainLayer(self.shared.clone())
    }

    /// Ends when a server has to close: for `with_graceful_shutdown` and its like.
    pub fn closing(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let handle = self.handle();
        async move { handle.reached(Phase::Closing).await }
    }

    /// Serves HTTP/1.1 and HTTP/2 until the drain has ended.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
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
        let server = Server::new(listener, self.layer().layer(service), self.handle());
        self.run(server.run()).await
    }

    /// Runs a server until the drain has ended.
    ///
    /// # Errors
    /// What the server fails with, or if the signals cannot be listened to.
    pub async fn run<F, E>(mut self, server: F) -> Result<DrainReport, BoxError>
    where
        F: IntoFuture<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let handle = self.handle();
        let mut server = pin!(server.into_future());
        let deregistered = tokio::select! {
            ended = &mut server => {
                ended.map_err(Into::into)?;
                return Ok(DrainReport::default());
            }
            deregistered = self.leave() => deregistered?,
        };
        self.shared.advance(Phase::Closing);
        let in_flight = handle.in_flight();
        let ended = timeout(self.grace, handle.idle_after(server)).await;
        // Read before the server and its connections are dropped, or nothing would be under way.
        let requests_cut = handle.in_flight();
        if 0 < requests_cut {
            evenkeel_metrics::drain_cut(requests_cut as u64);
            tracing::warn!(target: TARGET, requests_cut, grace = ?self.grace, "requests were cut");
        }
        self.shared.advance(Phase::Ended);
        let is_in_time = ended.is_ok();
        ended.unwrap_or(Ok(())).map_err(Into::into)?;
        Ok(DrainReport { deregistered, in_flight, requests_cut, is_in_time })
    }

    /// All that comes before the door is closed.
    async fn leave(&mut self) -> io::Result<Deregistered> {
        let handle = self.handle();
        if self.has_signals {
            tokio::select! {
                signal = signal() => signal?,
                () = handle.reached(Phase::NotReady) => {}
            }
            handle.start();
        }
        handle.reached(Phase::NotReady).await;
        let deregistered = match self.deregister.take() {
            None => Deregistered::NotAsked,
            Some(deregister) => match timeout(self.deregister_max, deregister()).await {
                Ok(Ok(())) => Deregistered::Done,
                Ok(Err(error)) => {
                    let error = &*error as &(dyn Error + 'static);
                    tracing::warn!(target: TARGET, error, "deregistering failed");
                    Deregistered::Failed
                }
                Err(_) => {
                    let after = self.deregister_max;
                    tracing::warn!(target: TARGET, ?after, "deregistering took too long");
                    Deregistered::TimedOut
                }
            },
        };
        self.shared.advance(Phase::Waiting);
        tokio::time::sleep(self.wait).await;
        Ok(deregistered)
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
            .finish_non_exhaustive()
    }
}

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether it was taken out of its registry.
    pub deregistered: Deregistered,
    /// Requests that were under way when the door was closed.
    pub in_flight: usize,
    /// Those of them, and of those that had been on the way, that were cut.
    pub requests_cut: usize,
    /// Whether all connections ended by themselves, within the bound.
    pub is_in_time: bool,
}

impl Default for DrainReport {
    /// That of a server that ended by itself.
    fn default() -> Self {
        let deregistered = Deregistered::NotAsked;
        Self { deregistered, in_flight: 0, requests_cut: 0, is_in_time: true }
    }
}

/// Whether a server was taken out of its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deregistered {
    /// There was nothing to be done.
    NotAsked,
    /// It was.
    Done,
    /// What was to do it failed.
    Failed,
    /// What was to do it took too long.
    TimedOut,
}

#[cfg(unix)]
async fn signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
