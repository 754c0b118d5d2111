//! Sends copies of some requests to another service, and ignores its answers.
//!
//! **Use it** to see a new version under real traffic before anything depends on it, to warm up
//! caches, to compare. **Not** for requests that have effects: the mirror repeats them. **Not**
//! where the other service shares a database with the first.
//!
//! * The caller gets the service's own answer, at the same moment as without a mirror. A separate
//!   task sends the copy when the service has answered; the mirror's answer is dropped.
//! * Nothing of the mirror reaches the caller: no failure, no panic, no wait. If a mirror is slow
//!   or down, copies are not sent.
//! * At most [`max_in_flight`](MirrorLayer::max_in_flight) copies are kept or under way at any
//!   time, each for at most [`timeout`](MirrorLayer::timeout) from when it is sent. Requests beyond
//!   that are not copied.
//! * A call that is cancelled before it is answered is not copied. Nor is a call whose request was
//!   not read to its end by then.
//!
//! The mirror is any `Service` for the same requests: for example a balanced stack with another
//! discovery. Its response type does not matter. The [rules](MirrorLayer::rules) say how requests
//! are copied: they are cloned, or, over HTTP, kept by `HttpMirror` of evenkeel-http while they are
//! sent.
//!
//! ```
//! use evenkeel::core::BoxError;
//! use evenkeel::mirror::MirrorLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (sender, mut copies) = tokio::sync::mpsc::unbounded_channel();
//! let shadow = service_fn(move |n: u32| {
//!     let sender = sender.clone();
//!     async move { sender.send(n).map_err(|_| BoxError::from("gone")) }
//! });
//! let service = service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) });
//!
//! let mirrored = MirrorLayer::new(shadow, 100.0).layer(service);
//!
//! assert_eq!(mirrored.oneshot(41).await.unwrap(), 42);
//! assert_eq!(copies.recv().await, Some(41));
//! # }
//! ```
//!
//! # Configured
//! ```
//! use std::time::Duration;
//! use evenkeel::mirror::MirrorLayer;
//! # use tower::service_fn;
//! # let shadow = service_fn(|n: u32| async move { Ok::<_, std::io::Error>(n) });
//!
//! let layer = MirrorLayer::new(shadow, 1.0) // one request in a hundred
//!     .max_in_flight(16)
//!     .timeout(Duration::from_secs(1));
//! # let _ = layer;
//! ```
//!
//! # What it costs
//! A random draw for each request. For one that is copied, the copy and a task.
//!
//! # The tower contract
//! It is ready when the service is; the copy's task waits for the mirror. Its future ends with the
//! service's, and passes its errors on. Clones share the bound.
//!
//! Compare Envoy's `request_mirror_policies` and nginx's `mirror`. Neither waits, but nginx's holds
//! the connection until the mirror has answered.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{
    BoxError, cut,
    mirror::{CloneRequest, Copies},
    rng::{Rng, Seeds},
};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, time::timeout};
use tower_layer::Layer;
use tower_service::Service;

/// Sends copies of requests to another service. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct MirrorLayer<T, P = CloneRequest> {
    mirror: T,
    rules: P,
    /// Out of 2³² tickets.
    tickets: u64,
    max_in_flight: u32,
    timeout: Duration,
    seed: Option<u64>,
}

/// How many tickets there are to draw from.
const TICKETS: u64 = 1 << 32;

impl<T> MirrorLayer<T> {
    /// Sends copies of `percent` of the requests, drawn at random, to `mirror`.
    ///
    /// # Panics
    /// If `percent` is not in `0.0..=100.0`.
    #[must_use]
    pub fn new(mirror: T, percent: f64) -> Self {
        assert!((0.0..=100.0).contains(&percent), "a share of the requests, in percent");
        Self {
            mirror,
            rules: CloneRequest,
            tickets: (percent / 100.0 * TICKETS as f64) as u64,
            max_in_flight: 64,
            timeout: Duration::from_secs(5),
            seed: None,
        }
    }
}

impl<T, P> MirrorLayer<T, P> {
    /// Sets how requests are copied. Default [`CloneRequest`]; evenkeel-http has `HttpMirror`.
    #[must_use]
    pub fn rules<Q>(self, rules: Q) -> MirrorLayer<T, Q> {
        let Self { mirror, tickets, max_in_flight, timeout, seed, .. } = self;
        MirrorLayer { mirror, rules, tickets, max_in_flight, timeout, seed }
    }

    /// Sets how many copies are kept or under way at most. Default 64.
    ///
    /// This bounds what a mirror that hangs costs: this many requests in memory, and as many tasks.
    /// With a small number, little of a burst is copied.
    #[must_use]
    pub fn max_in_flight(mut self, copies: u32) -> Self {
        self.max_in_flight = copies;
        self
    }

    /// Sets how long a copy may take, including the wait until the mirror is ready. Default 5
    /// seconds.
    ///
    /// A copy that is cut off counts as [failed without an answer](evenkeel_core::cut) in the
    /// mirror's own stack.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the seed by which requests are drawn, so that a run can be repeated. Default: the
    /// process's entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl<T: Clone, P: Clone, S> Layer<S> for MirrorLayer<T, P> {
    type Service = Mirror<S, T, P>;

    fn layer(&self, inner: S) -> Mirror<S, T, P> {
        let seeds = self.seed.map_or_else(Seeds::from_entropy, Seeds::new);
        let rng = seeds.rng();
        let shared =
            Arc::new(Shared { in_flight: AtomicU32::new(0), seeds, client: Client::current() });
        Mirror { inner, layer: self.clone(), rng, shared }
    }
}

/// Sends copies of requests to another service. See the [module docs](self).
pub struct Mirror<S, T, P = CloneRequest> {
    inner: S,
    layer: MirrorLayer<T, P>,
    rng: Rng,
    shared: Arc<Shared>,
}

/// What the clones share.
struct Shared {
    in_flight: AtomicU32,
    seeds: Seeds,
    client: Client,
}

/// Room for one copy, given back on drop.
struct Permit(Arc<Shared>);

impl Permit {
    fn take(shared: &Arc<Shared>, max: u32) -> Option<Self> {
        let before = shared.in_flight.fetch_add(1, Ordering::Relaxed);
        // Made first: its drop undoes the count if that was too much.
        let permit = Self(shared.clone());
        if before < max { Some(permit) } else { None }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S, T, P, Req> Service<Req> for Mirror<S, T, P>
where
    P: Copies<Req>,
    P::Request: Send + 'static,
    S: Service<P::Request>,
    T: Service<P::Request> + Clone + Send + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send,
    T::Response: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MirrorFuture<S::Future, T, P, P::Kept>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let layer = &self.layer;
        if layer.tickets <= self.rng.below_u64(TICKETS) {
            return MirrorFuture { future: self.inner.call(layer.rules.pass(request)), copy: None };
        }
        let Some(permit) = Permit::take(&self.shared, layer.max_in_flight) else {
            log_not_sent(&self.shared.client, "full");
            return MirrorFuture { future: self.inner.call(layer.rules.pass(request)), copy: None };
        };
        let (kept, request) = layer.rules.keep(request);
        let (mirror, rules, timeout) = (layer.mirror.clone(), layer.rules.clone(), layer.timeout);
        let copy = Some(Kept { kept, mirror, rules, timeout, permit, send: send::<T, P, Req> });
        MirrorFuture { future: self.inner.call(request), copy }
    }
}

pin_project! {
    /// The service's own answer. See the [module docs](self).
    pub struct MirrorFuture<F, T, P, K> {
        #[pin]
        future: F,
        copy: Option<Kept<T, P, K>>,
    }
}

/// A copy that is sent when the request has been answered.
struct Kept<T, P, K> {
    kept: K,
    mirror: T,
    rules: P,
    timeout: Duration,
    permit: Permit,
    /// [`send`], which knows the type of the requests.
    send: fn(Self),
}

/// Sends the copy in a separate task.
fn send<T, P, Req>(copy: Kept<T, P, P::Kept>)
where
    P: Copies<Req>,
    P::Request: Send + 'static,
    T: Service<P::Request> + Send + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send,
    T::Response: Send,
{
    let Kept { kept, mut mirror, rules, timeout: time, permit, .. } = copy;
    let Some(request) = rules.copy(kept) else {
        return log_not_sent(&permit.0.client, "incomplete");
    };
    // Without a runtime no task can send it.
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        let client = permit.0.client.clone();
        let _permit = permit;
        let mut call = Box::pin(async move {
            poll_fn(|cx| mirror.poll_ready(cx)).await.map_err(Into::into)?;
            mirror.call(request).await.map(drop).map_err(Into::into)
        });
        let result = timeout(time, &mut call).await.ok();
        if result.is_none() {
            cut::by_deadline(time, || drop(call));
        }
        log_end(&client, result);
    });
}

/// Logs what became of a copy. Logs nothing if it was cut off.
fn log_end(client: &Client, result: Option<Result<(), BoxError>>) {
    match result {
        Some(Ok(())) => evenkeel_metrics::count_mirror_copy(client, "success"),
        Some(Err(error)) => {
            evenkeel_metrics::count_mirror_copy(client, "failure");
            tracing::debug!(target: TARGET, client = client.name(), %error, "a mirrored call failed");
        }
        None => {
            evenkeel_metrics::count_mirror_copy(client, "timeout");
            tracing::debug!(target: TARGET, client = client.name(), "a mirrored call took too long");
        }
    }
}

#[cold]
fn log_not_sent(client: &Client, reason: &'static str) {
    evenkeel_metrics::count_mirror_copy(client, reason);
    tracing::debug!(target: TARGET, client = client.name(), reason, "a call was not mirrored");
}

/// The target of what is traced.
const TARGET: &str = "evenkeel::mirror";

impl<F: Future, T, P, K> Future for MirrorFuture<F, T, P, K> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        if let Some(copy) = this.copy.take() {
            (copy.send)(copy);
        }
        Poll::Ready(answer)
    }
}

impl<S: Clone, T: Clone, P: Clone> Clone for Mirror<S, T, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
            // Each clone draws its own numbers: clones that draw the same ones mirror the same
            // requests.
            rng: self.shared.seeds.rng(),
            shared: self.shared.clone(),
        }
    }
}

impl<S: fmt::Debug, T, P> fmt::Debug for Mirror<S, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<F, T, P, K> fmt::Debug for MirrorFuture<F, T, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorFuture")
            .field("is_copied", &self.copy.is_some())
            .finish_non_exhaustive()
    }
}
