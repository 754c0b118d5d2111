//! Services and a discovery that do what a test tells them, and record what was done to them.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc as std_mpsc,
    },
    task::{Context, Poll, Waker},
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    discover::{Discovery, Update, Watch},
    endpoint::{Address, Endpoint},
    node::Node,
    policy::{Picker, Policy, RoundRobin},
    traffic::AnyTraffic,
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service, ServiceExt};

/// The endpoint of weight 1 with this `name`.
pub(crate) fn endpoint(name: &str) -> Endpoint {
    Endpoint::new(address(name))
}

/// The address of the endpoint with this `name`.
pub(crate) fn address(name: &str) -> Address {
    Address::Name { host: name.into(), port: 80 }
}

/// A complete set of endpoints of weight 1.
pub(crate) fn set(names: &[&str]) -> Update {
    Update::Set(names.iter().map(|name| endpoint(name)).collect())
}

/// Waits until `balance` is ready for a number.
pub(crate) async fn ready<S: Service<u32>>(balance: &mut S) -> Result<&mut S, S::Error> {
    ServiceExt::<u32>::ready(balance).await
}

/// Picks each open endpoint in turn. The first call goes to the first of up to six.
///
/// The start of the turns is random. This seed draws a multiple of sixty for the balancer and its
/// first three clones.
pub(crate) fn from_the_first(discovery: impl Discovery) -> BalanceLayer {
    BalanceLayer::round_robin(discovery).seed(15_444_690)
}

/// Lets every task run that can run: one turn of the scheduler.
pub(crate) async fn tick() {
    tokio::task::yield_now().await;
}

/// All hosts of a test, by name, and what must never happen to any of them.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hosts: Mutex<BTreeMap<Address, Arc<Host>>>,
    calls_not_ready: AtomicUsize,
    polls_after_end: AtomicUsize,
}

impl World {
    /// The host with this `name`. It exists as soon as it is asked for.
    pub(crate) fn host(&self, name: &str) -> Arc<Host> {
        self.host_at(&address(name))
    }

    fn host_at(&self, address: &Address) -> Arc<Host> {
        let mut hosts = self.0.hosts.lock().expect("not poisoned");
        hosts.entry(address.clone()).or_default().clone()
    }

    /// A connection to the host of a node.
    pub(crate) fn connect(&self, node: &Arc<Node>) -> Probe {
        let host = self.host_at(node.address());
        host.connects.fetch_add(1, SeqCst);
        host.connections.fetch_add(1, SeqCst);
        let mut nodes = host.nodes.lock().expect("not poisoned");
        nodes.retain(|other| other.id() != node.id());
        nodes.push(node.clone());
        drop(nodes);
        let is_broken = Arc::new(AtomicBool::new(false));
        *host.latest.lock().expect("not poisoned") = is_broken.clone();
        let connection = Arc::new(Connection { host, is_broken, world: self.clone() });
        Probe { connection, is_ready: false }
    }

    /// A balancer over this world.
    pub(crate) fn balance(&self, layer: &BalanceLayer) -> Balance<Connector> {
        layer.layer(self.connector())
    }

    /// What connects to the hosts of this world.
    pub(crate) fn connector(&self) -> Connector {
        Connector(self.clone())
    }

    /// Connections that are open now, over all hosts.
    pub(crate) fn connections(&self) -> usize {
        let hosts = self.0.hosts.lock().expect("not poisoned");
        hosts.values().map(|host| host.connections()).sum()
    }

    /// Panics if a service that was not ready was called, or a future was polled after its end.
    pub(crate) fn assert_contract_kept(&self) {
        let calls = self.0.calls_not_ready.load(SeqCst);
        assert_eq!(calls, 0, "calls of a service that was not polled ready");
        let polls = self.0.polls_after_end.load(SeqCst);
        assert_eq!(polls, 0, "polls of a future that had ended");
    }
}

/// How a probe makes its connections.
pub(crate) struct Connector(World);

impl Connect for Connector {
    type Service = Probe;
    type Traffic = AnyTraffic;

    fn connect(&self, node: &Arc<Node>) -> Probe {
        self.0.connect(node)
    }

    fn traffic(&self) -> AnyTraffic {
        AnyTraffic
    }
}

/// A host's answer when it is asked whether it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Readiness {
    #[default]
    Ready,
    NotReady,
    /// The connection has failed for good.
    Broken,
}

/// What a host does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    AtOnce,
    /// When the test says so.
    Held,
    Error,
    Panic,
}

/// One endpoint, as a test sees it.
#[derive(Default)]
pub(crate) struct Host {
    readiness: Mutex<Readiness>,
    answer: Mutex<Answer>,
    wakers: Mutex<Vec<Waker>>,
    held: Mutex<Vec<oneshot::Sender<()>>>,
    nodes: Mutex<Vec<Arc<Node>>>,
    latest: Mutex<Arc<AtomicBool>>,
    connects: AtomicUsize,
    connections: AtomicUsize,
    calls: AtomicUsize,
    in_flight: AtomicUsize,
    ready_polls: AtomicUsize,
}

impl Host {
    pub(crate) fn is(&self, readiness: Readiness) {
        *self.readiness.lock().expect("not poisoned") = readiness;
        let wakers = std::mem::take(&mut *self.wakers.lock().expect("not poisoned"));
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn readiness(&self) -> Readiness {
        *self.readiness.lock().expect("not poisoned")
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("not poisoned") = answer;
    }

    /// Answers the oldest request that is held.
    pub(crate) fn release(&self) {
        let mut held = self.held.lock().expect("not poisoned");
        held.retain(|held| !held.is_closed());
        if !held.is_empty() {
            _ = held.remove(0).send(());
        }
    }

    /// The last node that was made for it.
    pub(crate) fn node(&self) -> Arc<Node> {
        self.nodes.lock().expect("not poisoned").last().expect("connected").clone()
    }

    /// All nodes that were ever made for it.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().expect("not poisoned").clone()
    }

    /// Attempts that its nodes count in flight, including those of old nodes.
    pub(crate) fn counted_in_flight(&self) -> usize {
        let nodes = self.nodes.lock().expect("not poisoned");
        nodes.iter().map(|node| node.in_flight() as usize).sum()
    }

    /// Whether the newest connection has failed for good.
    pub(crate) fn is_broken(&self) -> bool {
        self.latest.lock().expect("not poisoned").load(SeqCst)
    }

    /// How often it was connected to.
    pub(crate) fn connects(&self) -> usize {
        self.connects.load(SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Requests that it received.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    /// Requests that it has not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// How often it was asked whether it is ready.
    pub(crate) fn ready_polls(&self) -> usize {
        self.ready_polls.load(SeqCst)
    }
}

/// A connection to a host; clones share it.
pub(crate) struct Probe {
    connection: Arc<Connection>,
    is_ready: bool,
}

struct Connection {
    host: Arc<Host>,
    is_broken: Arc<AtomicBool>,
    world: World,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.host.connections.fetch_sub(1, SeqCst);
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { connection: self.connection.clone(), is_ready: false }
    }
}

impl<R> Service<R> for Probe {
    type Response = String;
    type Error = BoxError;
    type Future = Response;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let host = &self.connection.host;
        host.ready_polls.fetch_add(1, SeqCst);
        if self.connection.is_broken.load(SeqCst) {
            return Poll::Ready(Err(Refused.into()));
        }
        match host.readiness() {
            Readiness::Ready => {
                self.is_ready = true;
                Poll::Ready(Ok(()))
            }
            Readiness::NotReady => {
                host.wakers.lock().expect("not poisoned").push(cx.waker().clone());
                Poll::Pending
            }
            Readiness::Broken => {
                self.connection.is_broken.store(true, SeqCst);
                Poll::Ready(Err(Refused.into()))
            }
        }
    }

    fn call(&mut self, _: R) -> Response {
        let Connection { host, world, .. } = &*self.connection;
        if !std::mem::take(&mut self.is_ready) {
            world.0.calls_not_ready.fetch_add(1, SeqCst);
        }
        host.calls.fetch_add(1, SeqCst);
        host.in_flight.fetch_add(1, SeqCst);
        let answer = *host.answer.lock().expect("not poisoned");
        let held = (answer == Answer::Held).then(|| {
            let (sender, receiver) = oneshot::channel();
            host.held.lock().expect("not poisoned").push(sender);
            receiver
        });
        Response { host: host.clone(), world: world.clone(), answer, held, has_ended: false }
    }
}

/// The answer of a host.
pub(crate) struct Response {
    host: Arc<Host>,
    world: World,
    answer: Answer,
    held: Option<oneshot::Receiver<()>>,
    has_ended: bool,
}

impl Future for Response {
    type Output = Result<String, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.has_ended {
            self.world.0.polls_after_end.fetch_add(1, SeqCst);
        }
        if let Some(held) = &mut self.held {
            _ = std::task::ready!(Pin::new(held).poll(cx));
        }
        self.has_ended = true;
        Poll::Ready(match self.answer {
            Answer::AtOnce | Answer::Held => Ok(self.host.node().address().to_string()),
            Answer::Error => Err(Refused.into()),
            Answer::Panic => panic!("the service panics because the test says so"),
        })
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.host.in_flight.fetch_sub(1, SeqCst);
    }
}

/// The error of all probes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused")
    }
}

impl std::error::Error for Refused {}

/// A discovery that says what a test sends. It can be watched any number of times.
#[derive(Clone, Default)]
pub(crate) struct Channel(Arc<ChannelState>);

#[derive(Default)]
struct ChannelState {
    watchers: Mutex<Vec<mpsc::UnboundedSender<Result<Update, BoxError>>>>,
    last: Mutex<Option<Update>>,
    is_ended: AtomicBool,
    refreshes: AtomicUsize,
}

impl Channel {
    /// A discovery of these endpoints, until more is sent.
    pub(crate) fn of(names: &[&str]) -> Self {
        let channel = Self::default();
        channel.send(set(names));
        channel
    }

    pub(crate) fn send(&self, update: Update) {
        self.send_result(|| Ok(update.clone()));
        if let Update::Set(_) = update {
            *self.0.last.lock().expect("not poisoned") = Some(update);
        }
    }

    pub(crate) fn insert(&self, endpoint: Endpoint) {
        self.send(Update::Insert(endpoint));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.send(Update::Remove(address(name)));
    }

    pub(crate) fn fail(&self) {
        self.send_result(|| Err(Refused.into()));
    }

    /// Ends all streams.
    pub(crate) fn end(&self) {
        self.0.is_ended.store(true, SeqCst);
        self.0.watchers.lock().expect("not poisoned").clear();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.0.is_ended.load(SeqCst)
    }

    /// Forgets everything. Streams that begin from now on go on until they are ended.
    pub(crate) fn begin(&self) {
        self.0.is_ended.store(false, SeqCst);
        *self.0.last.lock().expect("not poisoned") = None;
    }

    /// How often a refresh was requested.
    pub(crate) fn refreshes(&self) -> usize {
        self.0.refreshes.load(SeqCst)
    }

    fn send_result(&self, result: impl Fn() -> Result<Update, BoxError>) {
        let watchers = self.0.watchers.lock().expect("not poisoned");
        for watcher in &*watchers {
            _ = watcher.send(result());
        }
    }
}

impl Discovery for Channel {
    fn watch(&self) -> Watch {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        if let Some(last) = &*self.0.last.lock().expect("not poisoned") {
            _ = sender.send(Ok(last.clone()));
        }
        if !self.0.is_ended.load(SeqCst) {
            self.0.watchers.lock().expect("not poisoned").push(sender);
        }
        Box::pin(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    }

    fn refresh(&self) {
        self.0.refreshes.fetch_add(1, SeqCst);
    }
}

/// A place where a thread halts once, if it was told to.
#[derive(Debug, Default)]
pub(crate) struct Halt(Mutex<Option<(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)>>);

impl Halt {
    /// The next thread to pass halts. It says so on the first of these, and continues on the
    /// second.
    pub(crate) fn arm(&self) -> (std_mpsc::Receiver<()>, std_mpsc::Sender<()>) {
        let ((here, is_here), (go, goes)) = (std_mpsc::channel(), std_mpsc::channel());
        *self.0.lock().expect("not poisoned") = Some((here, goes));
        (is_here, go)
    }

    pub(crate) fn pass(&self) {
        let halts = self.0.lock().expect("not poisoned").take();
        if let Some((here, goes)) = halts {
            here.send(()).expect("the test waits for it");
            goes.recv().expect("the test goes on");
        }
    }
}

/// Counts how often a picker is built: once for each snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountBuilds(Arc<AtomicUsize>);

impl CountBuilds {
    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Policy for CountBuilds {
    fn name(&self) -> &'static str {
        "count_builds"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        self.0.fetch_add(1, SeqCst);
        RoundRobin.build(nodes, previous)
    }
}
