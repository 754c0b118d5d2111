//! The balancer as a service.

use std::{
    fmt,
    future::{self, Future},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use evenkeel_core::{
    BoxError, attempt::Attempt, connect::Connect, error::NoRuntime, node::Node, rng::Rng,
    snapshot::Reader, traffic::Traffic,
};
use tokio::{
    runtime::{self, Handle},
    time::timeout,
};
use tower_service::Service;

use super::{
    future::{BalanceFuture, poll_ready},
    pool::Pool,
    probing::send_probes,
    running::{Own, Running},
    select::{First, Wish, select},
    settings::Settings,
    shared::{Shared, Snapshot},
    tend::tend,
};
use crate::background::Task;

/// How many times a balancer is made ready between two checks that the runtime of its background
/// task is driven.
const LOOKS_EVERY: u8 = 64;

/// Chooses an endpoint for each request. See the [module docs](super).
pub struct Balance<C: Connect> {
    owner: Arc<Owner<C>>,
    reader: Reader<Snapshot<C::Service>>,
    rng: Rng,
    traffic: C::Traffic,
    /// `poll_ready` while no node is open, and the runtime of its timer.
    waiting: Option<(runtime::Id, Waiting)>,
    /// How many times it was made ready, up to a multiple of [`LOOKS_EVERY`].
    readied: u8,
}

type Waiting = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + Sync>>;

/// Owned by the clones alone: the background task ends when the last of them is dropped.
struct Owner<C: Connect> {
    settings: Settings,
    connect: Arc<C>,
    shared: Arc<Shared<C::Service>>,
    /// The number of the background task that manages the nodes; see [`Running`].
    running: Arc<AtomicU64>,
    task: Mutex<Option<Task>>,
}

impl<C> Balance<C>
where
    C: Connect + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
{
    pub(super) fn new(settings: Settings, connect: C) -> Self {
        let picker = settings.policy.build(&[], None);
        let shared = Arc::new(Shared::new(picker, &settings));
        let traffic = connect.traffic();
        let (reader, rng) = (shared.snapshots.reader(), shared.rng());
        let owner = Arc::new(Owner {
            settings,
            connect: Arc::new(connect),
            shared,
            running: Arc::default(),
            task: Mutex::default(),
        });
        let known: Weak<dyn Own> = Arc::downgrade(&owner) as _;
        owner.shared.set_owner(known);
        Self { owner, reader, rng, traffic, waiting: None, readied: 0 }
    }

    /// The current nodes, in the order in which discovery names them.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.owner.shared.snapshots.current().nodes.to_vec()
    }

    /// Starts the background task if it does not run, and waits until a node is open.
    #[cold]
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.owner.is_running() {
            self.owner.start()?;
        }
        if self.owner.is_available() {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        // A timer of another runtime, which may have ended, must not be polled.
        let runtime = Handle::try_current().map_err(|_| NoRuntime::default())?.id();
        let (_, mut waiting) =
            self.waiting.take().filter(|(began_on, _)| *began_on == runtime).unwrap_or_else(|| {
                self.owner.shared.log_wait();
                (runtime, Box::pin(wait_until_one_is_open(self.owner.shared.clone())))
            });
        let result = waiting.as_mut().poll(cx);
        if result.is_pending() {
            self.waiting = Some((runtime, waiting));
        }
        result
    }
}

impl<C> Owner<C>
where
    C: Connect + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
{
    #[inline]
    fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) != Running::NONE
    }

    /// Whether the background task manages the nodes and one of them may be used, even if its
    /// health closes it.
    fn is_available(&self) -> bool {
        self.is_running() && self.shared.any_available()
    }

    /// Starts the background task. Starts it again if the runtime it ran on has ended.
    #[cold]
    fn start(&self) -> Result<(), NoRuntime> {
        let runtime = Handle::try_current().map_err(|_| NoRuntime::default())?;
        let task = self.task();
        if !self.is_running() {
            self.spawn(&runtime, task);
        }
        Ok(())
    }

    fn task(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().expect("no panic under the lock")
    }

    fn spawn(&self, runtime: &Handle, mut task: MutexGuard<'_, Option<Task>>) {
        let running = Running::next(&self.running, runtime);
        let pool = Pool::new(&self.settings, &self.connect, &self.shared, running);
        let probes = self.settings.probes.clone();
        let (shared, tended) = (self.shared.clone(), self.shared.clone());
        let run = async move {
            let probes = async {
                match probes {
                    Some(probes) => send_probes(probes, shared).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = pool.run() => {}
                () = probes => {}
                () = tend(tended) => {}
            }
        };
        *task = Some(Task::spawn(runtime, run));
    }
}

impl<C> Own for Owner<C>
where
    C: Connect + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
{
    fn elsewhere(&self, runtime: &Handle) -> Option<u64> {
        let task = self.task();
        let is_elsewhere =
            task.as_ref().is_some_and(|task| !task.is_finished() && !task.is_driven_with(runtime));
        (is_elsewhere && self.is_running()).then(|| self.running.load(Ordering::Acquire))
    }

    fn take_over(&self, number: u64, runtime: &Handle) {
        let task = self.task();
        if self.running.load(Ordering::Acquire) != number {
            return;
        }
        if let Some(task) = &*task {
            // If its runtime rests, the task is dropped when that is driven again, or with it.
            task.abort();
        }
        let left = self.shared.snapshots.current().nodes.len();
        evenkeel_metrics::add_endpoints(&self.shared.client, -(left as isize));
        self.spawn(runtime, task);
    }
}

impl<C: Connect> Drop for Owner<C> {
    fn drop(&mut self) {
        let task = self.task.get_mut().expect("no panic under the lock").take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl<C, R> Service<R> for Balance<C>
where
    C: Connect + Send + Sync + 'static,
    C::Service: Service<R> + Clone + Send + Sync + 'static,
    <C::Service as Service<R>>::Error: Into<BoxError>,
    C::Traffic: Traffic<R, <C::Service as Service<R>>::Response, <C::Service as Service<R>>::Error>,
{
    type Response = <C::Traffic as Traffic<
        R,
        <C::Service as Service<R>>::Response,
        <C::Service as Service<R>>::Error,
    >>::Response;
    type Error = BoxError;
    type Future = BalanceFuture<C::Service, C::Traffic, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let running = self.owner.running.load(Ordering::Acquire);
        if Running::may_rest(running) {
            if self.readied == 0 {
                self.owner.shared.look_after_task();
            }
            self.readied = (self.readied + 1) % LOOKS_EVERY;
        }
        let is_open = running != Running::NONE && self.owner.shared.signals.any_open();
        if self.waiting.is_none() && is_open {
            return Poll::Ready(Ok(()));
        }
        self.poll_open(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        if !self.owner.is_running() {
            // It was called without having been made ready. Outside a runtime the request is
            // refused below.
            let _ = self.owner.start();
        }
        let shared = &self.owner.shared;
        let traffic = self.traffic.clone();
        let snapshot = self.reader.read(&shared.snapshots);
        let hints = traffic.hints(&request);
        let poll_ready = poll_ready::<C::Service, R>;
        if shared.ask_first.is_some() && hints.prefer.is_empty() {
            let selecting = select(shared.clone(), poll_ready, Wish::new(&hints), First::Asked);
            return BalanceFuture::selecting(request, traffic, selecting);
        }
        if let Some(slot) = shared.pick(snapshot, &mut self.rng, &hints, &[]) {
            return BalanceFuture::picked(request, traffic, Attempt::new(slot));
        }
        shared.log_wait();
        let selecting = select(shared.clone(), poll_ready, Wish::new(&hints), First::NoneOpen);
        BalanceFuture::selecting(request, traffic, selecting)
    }
}

async fn wait_until_one_is_open<S>(shared: Arc<Shared<S>>) -> Result<(), BoxError> {
    let opened = async {
        loop {
            let changed = shared.signals.changed.notified();
            if shared.any_available() {
                return;
            }
            changed.await;
        }
    };
    let waited = async {
        tokio::select! {
            biased;
            () = opened => {}
            never = shared.keep_task_driven() => match never {},
        }
    };
    timeout(shared.max_wait, waited).await.map_err(|_| shared.refusal())
}

impl<C> Clone for Balance<C>
where
    C: Connect,
    C::Traffic: Clone,
{
    fn clone(&self) -> Self {
        Self {
            owner: self.owner.clone(),
            reader: self.reader.clone(),
            // Each clone draws its own numbers: clones that draw the same ones herd.
            rng: self.owner.shared.rng(),
            traffic: self.traffic.clone(),
            waiting: None,
            readied: 0,
        }
    }
}

impl<C: Connect> fmt::Debug for Balance<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.owner.shared.snapshots.current();
        f.debug_struct("Balance")
            .field("policy", &self.owner.settings.policy)
            .field("nodes", &snapshot.nodes)
            .finish_non_exhaustive()
    }
}
