//! How active health checks are configured, and the `Connect` that the layer makes.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use evenkeel_core::{
    connect::Connect,
    endpoint::Address,
    health::check::{CheckRules, Probe, Standing},
    node::Node,
};
use tower_layer::Layer;

use super::{
    task::watch_node,
    watch::{Running, Watch},
};

/// Probes endpoints and leaves out those that fail. See the [module docs](super).
///
/// Clones share what they find. An endpoint that several balancers have is probed once, and a
/// balancer made again from the same layer begins with what is known. Calling a setter makes a
/// layer that shares nothing.
pub struct ActiveHealthLayer<P> {
    probe: Arc<P>,
    rules: CheckRules,
    seed: Option<u64>,
    watch: Arc<OnceLock<Arc<Watch>>>,
}

impl<P: Probe> ActiveHealthLayer<P> {
    /// Uses HAProxy's rules: every 2 seconds, 3 failures close and 2 successes open.
    #[must_use]
    pub fn new(probe: P) -> Self {
        let probe = Arc::new(probe);
        Self { probe, rules: CheckRules::default(), seed: None, watch: Arc::default() }
    }

    /// Sets how long after a probe the next one follows. Default 2 seconds.
    ///
    /// It bounds how long a dead endpoint goes unnoticed. Each client process probes each endpoint
    /// this often. After a contrary result the next probe follows sooner: see
    /// [`interval_edge`](Self::interval_edge).
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        self.change(|rules| rules.interval = interval)
    }

    /// Sets the interval after a result that contradicts what was known. Default 500 ms.
    ///
    /// If it equals [`interval`](Self::interval), it has no effect. If it is very short, several
    /// probes test the same moment.
    #[must_use]
    pub fn interval_edge(self, interval: Duration) -> Self {
        self.change(|rules| rules.interval_edge = interval)
    }

    /// Sets the interval for endpoints that fail. Default: the same as for others.
    #[must_use]
    pub fn interval_down(self, interval: Duration) -> Self {
        self.change(|rules| rules.interval_down = Some(interval))
    }

    /// Sets the interval used while no request has ended for that long. Default: no difference.
    ///
    /// For sets that many clients know and few use. The first request after a pause may meet an
    /// endpoint that died that long ago. Every request costs some nanoseconds more, since it has to
    /// be noticed.
    #[must_use]
    pub fn interval_idle(self, interval: Duration) -> Self {
        self.change(|rules| rules.interval_idle = Some(interval))
    }

    /// Sets how long one probe may take. Default 1 second.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|rules| rules.timeout = timeout)
    }

    /// Sets how many probes in a row must fail to close an endpoint. Default 3.
    ///
    /// With 1, every lost packet closes an endpoint. An endpoint that reports itself as unhealthy
    /// is closed at once.
    #[must_use]
    pub fn fall(self, probes: u32) -> Self {
        self.change(|rules| rules.fall = probes)
    }

    /// Sets how many probes in a row must pass to open an endpoint again. Default 2.
    #[must_use]
    pub fn rise(self, probes: u32) -> Self {
        self.change(|rules| rules.rise = probes)
    }

    /// Sets whether an endpoint gets no request before its first probe has passed. Default false.
    ///
    /// If true, requests wait for the first endpoint as long as the balancer lets them
    /// ([`max_wait`](crate::balance::BalanceLayer::max_wait)).
    #[must_use]
    pub fn closed_at_first(self, is_closed: bool) -> Self {
        self.change(|rules| rules.is_closed_at_first = is_closed)
    }

    /// Sets how many probes may begin in a second, over all endpoints. Default 500.
    ///
    /// With more endpoints than fit into an interval, the interval becomes longer: by default
    /// 10,000 endpoints are probed every 20 seconds. As many probes as begin within the
    /// [`timeout`](Self::timeout) may be under way at the same time.
    #[must_use]
    pub fn probes_per_second(self, probes: u32) -> Self {
        self.change(|rules| rules.probes_per_second = probes)
    }

    /// Sets whether probes that pass end an ejection by an
    /// [`OutlierLayer`](crate::outlier::OutlierLayer) in the same stack. Default true.
    ///
    /// Set it to false if the probe does not see what requests suffer from: otherwise each ejection
    /// lasts only for [`rise`](Self::rise) probes.
    #[must_use]
    pub fn ends_ejections(self, ends: bool) -> Self {
        self.change(|rules| rules.ends_ejections = ends)
    }

    /// Sets all rules at once, including those that have no setter here.
    #[must_use]
    pub fn rules(self, rules: CheckRules) -> Self {
        self.change(|all| *all = rules)
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.change(|_| ())
    }

    /// What this layer and its clones find. It can be read. Take it after the last setter.
    ///
    /// # Panics
    /// If a rule makes no sense: see [`Checks::new`](evenkeel_core::health::check::Checks::new).
    #[must_use]
    pub fn results(&self) -> Results {
        Results(self.watch())
    }

    /// A layer with other rules has its own checks: what clones share was found by their rules.
    fn change(mut self, change: impl FnOnce(&mut CheckRules)) -> Self {
        change(&mut self.rules);
        self.watch = Arc::default();
        self
    }

    fn watch(&self) -> Arc<Watch> {
        let new = || Arc::new(Watch::new(self.rules.clone(), self.seed));
        self.watch.get_or_init(new).clone()
    }
}

impl<P> Clone for ActiveHealthLayer<P> {
    fn clone(&self) -> Self {
        Self {
            probe: self.probe.clone(),
            rules: self.rules.clone(),
            seed: self.seed,
            watch: self.watch.clone(),
        }
    }
}

impl<C, P: Probe> Layer<C> for ActiveHealthLayer<P> {
    type Service = ActiveHealthConnect<C, P>;

    /// # Panics
    /// If a rule makes no sense: see [`Checks::new`](evenkeel_core::health::check::Checks::new).
    fn layer(&self, inner: C) -> ActiveHealthConnect<C, P> {
        let watch = self.watch();
        let running = watch.running();
        ActiveHealthConnect { inner, probe: self.probe.clone(), watch, running }
    }
}

/// Connects, and has the endpoints probed. See the [module docs](super).
pub struct ActiveHealthConnect<C, P> {
    inner: C,
    probe: Arc<P>,
    watch: Arc<Watch>,
    /// Owned by everything that the clones of one layer have made: the task ends with the last of
    /// it.
    running: Arc<Running>,
}

impl<C: Connect, P: Probe> Connect for ActiveHealthConnect<C, P> {
    type Service = C::Service;
    type Traffic = C::Traffic;

    fn connect(&self, node: &Arc<Node>) -> C::Service {
        watch_node(&self.watch, node, &self.running, &self.probe);
        self.inner.connect(node)
    }

    fn traffic(&self) -> C::Traffic {
        self.inner.traffic()
    }
}

/// What probes have found.
#[derive(Clone)]
pub struct Results(Arc<Watch>);

impl Results {
    /// What is known of each endpoint, including those that left recently.
    #[must_use]
    pub fn list(&self) -> Vec<(Address, Standing)> {
        self.0.checks.list()
    }

    /// What is known of the endpoint of this address.
    #[must_use]
    pub fn of(&self, address: &Address) -> Standing {
        self.0.checks.standing(address)
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl<P> fmt::Debug for ActiveHealthLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveHealthLayer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl<C: fmt::Debug, P> fmt::Debug for ActiveHealthConnect<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveHealthConnect").field("inner", &self.inner).finish_non_exhaustive()
    }
}
