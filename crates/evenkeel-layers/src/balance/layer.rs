//! How a balancer is configured.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    connect::Connect,
    discover::Discovery,
    policy::{
        ClientSideWeighted, Ketama, LeastLoaded, Maglev, P2c, PanicThreshold, PeakEwma, PickFirst,
        Policy, Prequal, Random, Rendezvous, RingHash, RoundRobin, SlowStart, SyncPrequal, Tiers,
        WeightedP2c, WeightedRandom, WeightedRoundRobin, ZoneAware,
    },
    probe::LoadProbe,
};
use tower_layer::Layer;

use super::{
    probes::Probes,
    service::Balance,
    settings::{AskFirst, Settings},
};

/// Balances over the endpoints of a discovery. See the [module docs](super).
#[derive(Clone)]
pub struct BalanceLayer {
    settings: Settings,
}

impl BalanceLayer {
    /// Picks each open endpoint in turn. See [`RoundRobin`].
    #[must_use]
    pub fn round_robin(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, RoundRobin)
    }

    /// Picks each open endpoint in turn, in proportion to its weight. See [`WeightedRoundRobin`].
    #[must_use]
    pub fn weighted_round_robin(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, WeightedRoundRobin)
    }

    /// Picks an open endpoint at random. See [`Random`].
    #[must_use]
    pub fn random(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, Random)
    }

    /// Picks an open endpoint at random, by weight. See [`WeightedRandom`].
    #[must_use]
    pub fn weighted_random(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, WeightedRandom)
    }

    /// Picks the less busy of two. See [`P2c`].
    #[must_use]
    pub fn p2c(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, P2c)
    }

    /// Picks the less busy of two, relative to weight. See [`WeightedP2c`].
    #[must_use]
    pub fn weighted_p2c(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, WeightedP2c)
    }

    /// Picks the least busy of all. See [`LeastLoaded`].
    #[must_use]
    pub fn least_loaded(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, LeastLoaded)
    }

    /// Picks the one of two that costs less latency. See [`PeakEwma`].
    #[must_use]
    pub fn peak_ewma(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, PeakEwma::default())
    }

    /// Picks each open endpoint in turn, as often as its reported load allows. See
    /// [`ClientSideWeighted`].
    #[must_use]
    pub fn client_side_weighted_round_robin(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, ClientSideWeighted::default())
    }

    /// Picks the quickest of those recently probed that are not busier than usual. See [`Prequal`].
    ///
    /// `probe` asks an endpoint for its load. It is an async closure, or a probe of evenkeel-http.
    #[must_use]
    pub fn prequal(discovery: impl Discovery, probe: impl LoadProbe) -> Self {
        Self::with_policy(discovery, Prequal::default()).probe(probe)
    }

    /// Asks three endpoints for their load before each request, and picks the best of the first two
    /// that answer: Prequal's synchronous mode. See [`SyncPrequal`].
    ///
    /// **Use it** where a request costs far more than a probe and its answer, and where endpoints
    /// can say what *this* request would cost them. An endpoint that has its answer cached reports a
    /// tenth of its load, and so attracts it ([`LoadProbe::probe_for`]). **Not** where latency is
    /// shorter than a round trip: each request waits for one. If no endpoint answers in time,
    /// [`P2c`] chooses.
    #[must_use]
    pub fn ask_first(discovery: impl Discovery, probe: impl LoadProbe) -> Self {
        let ask_first = AskFirst {
            probes: Probes::new(probe),
            count: 3,
            choice: Arc::new(SyncPrequal::default()),
        };
        let mut layer = Self::p2c(discovery);
        layer.settings.ask_first = Some(ask_first);
        layer
    }

    /// Replaces the policy that this layer was created with.
    ///
    /// ```
    /// use evenkeel::core::{endpoint::Endpoint, policy::RoundRobin};
    /// use evenkeel::balance::BalanceLayer;
    ///
    /// let endpoints: Vec<Endpoint> = vec!["10.0.0.1:8080".parse().unwrap()];
    /// let balance = BalanceLayer::p2c(endpoints).policy(RoundRobin);
    /// # drop(balance);
    /// ```
    #[must_use]
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.settings.policy = Arc::new(policy);
        self
    }

    /// Sets how many endpoints [`ask_first`](Self::ask_first) asks for each request. Default 3.
    ///
    /// Each costs a message there and back. More than five gain little.
    ///
    /// # Panics
    /// If it is less than 2.
    #[must_use]
    pub fn asked(mut self, count: usize) -> Self {
        assert!(2 <= count, "{count} answers are no choice");
        if let Some(ask_first) = &mut self.settings.ask_first {
            ask_first.count = count;
        }
        self
    }

    /// Picks the first open endpoint of the list. See [`PickFirst`].
    #[must_use]
    pub fn pick_first(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, PickFirst)
    }

    /// Picks the same endpoint for the same key, as Envoy and gRPC do. See [`RingHash`].
    ///
    /// The request's hash says what its key is: for HTTP `HttpConnector::hash_by`.
    #[must_use]
    pub fn ring_hash(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, RingHash::new())
    }

    /// Picks the same endpoint for the same key, as nginx does. See [`Ketama`], also for pingora.
    #[must_use]
    pub fn ketama(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, Ketama::new())
    }

    /// Picks the same endpoint for the same key, and spreads keys most evenly. See [`Maglev`].
    #[must_use]
    pub fn maglev(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, Maglev::new())
    }

    /// Picks the same endpoint for the same key, and moves as few keys as possible. See
    /// [`Rendezvous`].
    #[must_use]
    pub fn rendezvous(discovery: impl Discovery) -> Self {
        Self::with_policy(discovery, Rendezvous::new())
    }

    /// Picks whatever `policy` chooses.
    #[must_use]
    pub fn with_policy(discovery: impl Discovery, policy: impl Policy) -> Self {
        let settings = Settings {
            discovery: Arc::new(discovery),
            policy: Arc::new(policy),
            max_wait: Duration::from_secs(3),
            fail_open: true,
            seed: None,
            probes: None,
            ask_first: None,
        };
        Self { settings }
    }

    /// Uses endpoints by their tiers: what the first cannot carry goes to the next. Within each
    /// tier the policy set so far chooses. See [`Tiers`]. Default off: tiers are ignored.
    #[must_use]
    pub fn tiers(self) -> Self {
        self.wrap(Tiers::new)
    }

    /// Keeps as much in the zone `own` as its endpoints can carry. Within each zone the policy set
    /// so far chooses. See [`ZoneAware`]. Default off: zones are ignored.
    ///
    /// Call it before [`tiers`](Self::tiers) for zones within each tier.
    #[must_use]
    pub fn zone(self, own: impl Into<Arc<str>>) -> Self {
        self.wrap(|policy| ZoneAware::new(own, policy))
    }

    /// Gives an endpoint that is new, or back from an ejection, less than the policy set so far
    /// would, until `window` has passed. See [`SlowStart`]. Default off.
    ///
    /// # Panics
    /// If `window` is zero, or longer than 30 days.
    #[must_use]
    pub fn slow_start(self, window: Duration) -> Self {
        self.wrap(|policy| SlowStart::new(window, policy))
    }

    /// While fewer than `percent` of the endpoints are well, also uses those closed only by their
    /// health. See [`PanicThreshold`]. Default 0: they are used only while no other is open, which
    /// is what [`fail_open`](Self::fail_open) does. Not needed with [`tiers`](Self::tiers), each of
    /// which has a threshold of 50.
    ///
    /// # Panics
    /// If `percent` is more than 100.
    #[must_use]
    pub fn panic_threshold(self, percent: u32) -> Self {
        self.wrap(|policy| PanicThreshold::new(percent, policy))
    }

    fn wrap<P: Policy>(mut self, wrapper: impl FnOnce(Arc<dyn Policy>) -> P) -> Self {
        self.settings.policy = Arc::new(wrapper(self.settings.policy));
        self
    }

    /// Sets how long a request waits for an open endpoint before it is refused. Default 3 seconds.
    ///
    /// Zero refuses at once, also at the start, before discovery has had a chance to answer. A
    /// value much longer than callers wait piles up requests whose callers have left.
    #[must_use]
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// Sets whether endpoints that are ejected, fail their health check or have an open breaker are
    /// used while no other is left. Default true.
    ///
    /// When all endpoints look bad, the judgement is more likely wrong than the endpoints, and
    /// callers get an endpoint's own answer, not ours. If false, requests wait for `max_wait` and
    /// get [`AllEndpointsClosed`](evenkeel_core::error::AllEndpointsClosed). While no endpoint is
    /// open, a pick looks at all of them.
    #[must_use]
    pub fn fail_open(mut self, fail_open: bool) -> Self {
        self.settings.fail_open = fail_open;
        self
    }

    /// Sets how endpoints are asked for their load, for a policy that goes by their answers.
    ///
    /// By default none is asked, and [`Prequal`] goes by requests in flight. A policy that wants no
    /// probes sends none.
    #[must_use]
    pub fn probe(mut self, probe: impl LoadProbe) -> Self {
        self.settings.probes = Some(Probes::new(probe));
        self
    }

    /// Sets how long such a probe may take. Default 100 ms. Without [`probe`](Self::probe) it has
    /// no effect.
    ///
    /// An answer that takes longer than the load takes to change is of little use. A timeout
    /// shorter than the network's delays leaves the policy without answers. Inside one data centre
    /// 3 ms have been enough.
    #[must_use]
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        let asked_first = self.settings.ask_first.iter_mut().map(|ask_first| &mut ask_first.probes);
        self.settings
            .probes
            .iter_mut()
            .chain(asked_first)
            .for_each(|probes| probes.timeout(timeout));
        self
    }

    /// Sets the seed of all random choices, so that a run can be repeated. Default: the process's
    /// entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }
}

impl<C> Layer<C> for BalanceLayer
where
    C: Connect + Send + Sync + 'static,
    C::Service: Send + Sync + 'static,
{
    type Service = Balance<C>;

    fn layer(&self, connect: C) -> Balance<C> {
        Balance::new(self.settings.clone(), connect)
    }
}

impl std::fmt::Debug for BalanceLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("policy", &self.settings.policy)
            .field("max_wait", &self.settings.max_wait)
            .finish_non_exhaustive()
    }
}
