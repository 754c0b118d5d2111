//! A hundred thousand random steps. After each one the result is compared with a plain oracle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    discover::Update,
    node::{Gate, Node},
    policy,
    rng::Rng,
};
use evenkeel_layers::balance::{Balance, BalanceFuture, BalanceLayer};
use tokio_test::task::Spawn;
use tower::Service;

use crate::balance::probe::{
    Answer, Channel, Connector, Host, Probe, Readiness, World, endpoint, tick,
};

const STEPS: usize = 100_000;

/// As many as a call waits for at the same time.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Calls at the same time.
const MAX_CALLS: usize = 16;

type Call = BalanceFuture<Probe, evenkeel_core::traffic::AnyTraffic, u32>;

/// What the oracle knows of an endpoint that discovery names.
#[derive(Clone, Copy)]
struct Known {
    weight: u32,
    is_ejected: bool,
}

struct Stress {
    rng: Rng,
    world: World,
    hosts: BTreeMap<&'static str, Arc<Host>>,
    discovery: Channel,
    layer: BalanceLayer,
    fail_open: bool,
    clones: Vec<Balance<Connector>>,
    known: BTreeMap<&'static str, Known>,
    calls: Vec<Spawn<Call>>,
    /// Discovery's stream is closed until this step.
    closed_until: usize,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    called: usize,
    waited: usize,
    refused: usize,
    not_ready: usize,
}

impl Stress {
    fn new(name: &str, seed: u64) -> Self {
        let discovery = Channel::default();
        let policy = policy::by_name(name).expect("a built-in policy");
        let fail_open = seed % 2 == 1;
        let layer = BalanceLayer::with_policy(discovery.clone(), policy)
            .max_wait(Duration::from_secs(1_000_000))
            .fail_open(fail_open)
            .seed(seed);
        let world = World::default();
        let hosts: BTreeMap<_, _> = NAMES.map(|name| (name, world.host(name))).into();
        hosts.values().for_each(|host| host.answers(Answer::Held));
        let clones = vec![world.balance(&layer)];
        let mut stress = Self {
            rng: Rng::with_seed(seed),
            world,
            hosts,
            discovery,
            layer,
            fail_open,
            clones,
            known: BTreeMap::new(),
            calls: Vec::new(),
            closed_until: 0,
            counts: Counts::default(),
        };
        stress.multiply();
        stress
    }

    fn multiply(&mut self) {
        self.clones.extend((1..4).map(|_| self.clones[0].clone()).collect::<Vec<_>>());
    }

    async fn run(&mut self) {
        self.start().await;
        for step in 0..STEPS {
            self.step(step).await;
            // A turn for the pool, and one for what it has repaired.
            tick().await;
            tick().await;
            self.poll_woken();
            self.check();
        }
        self.end().await;
    }

    async fn start(&mut self) {
        // The first poll starts the background task.
        assert!(self.poll_ready(0).is_pending());
        tick().await;
        tick().await;
    }

    async fn step(&mut self, step: usize) {
        if step == self.closed_until {
            self.renew().await;
        }
        let name = NAMES[self.rng.below(NAMES.len())];
        match self.rng.below(100) {
            0..6 => self.insert(name),
            6..11 => self.remove(name),
            11 => self.replace(),
            12..16 => self.set_gate(name, true),
            16..22 => self.set_gate(name, false),
            22..32 => self.hosts[name].is(Readiness::Ready),
            32..38 => self.hosts[name].is(Readiness::NotReady),
            38..40 => self.hosts[name].is(Readiness::Broken),
            40..70 => self.call(),
            70..78 => self.cancel(),
            78..95 => self.hosts[name].release(),
            95..99 => {
                let millis = self.rng.below_u64(2_000);
                tokio::time::advance(Duration::from_millis(millis)).await;
            }
            _ if self.rng.below(20) == 0 && self.closed_until < step => {
                self.discovery.end();
                self.closed_until = step + 100;
            }
            _ => self.discovery.fail(),
        }
    }

    fn is_closed(&self) -> bool {
        self.discovery.is_ended()
    }

    fn weight(&mut self) -> u32 {
        [0, 1, 1, 1, 3, 1_000_000][self.rng.below(6)]
    }

    fn insert(&mut self, name: &'static str) {
        let weight = self.weight();
        self.discovery.insert(endpoint(name).weight(weight));
        if !self.is_closed() {
            self.known.entry(name).or_insert(Known { weight, is_ejected: false }).weight = weight;
        }
    }

    fn remove(&mut self, name: &'static str) {
        self.discovery.remove(name);
        if !self.is_closed() {
            self.known.remove(name);
        }
    }

    fn replace(&mut self) {
        let mut set = BTreeMap::new();
        for name in NAMES {
            if self.rng.below(2) == 0 {
                let weight = self.weight();
                set.insert(name, weight);
            }
        }
        let endpoints = set.iter().map(|(name, &weight)| endpoint(name).weight(weight)).collect();
        self.discovery.send(Update::Set(endpoints));
        if !self.is_closed() {
            self.known.retain(|name, _| set.contains_key(name));
            for (name, weight) in set {
                self.known.entry(name).or_insert(Known { weight, is_ejected: false }).weight =
                    weight;
            }
        }
    }

    fn set_gate(&mut self, name: &'static str, is_closed: bool) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.is_ejected = is_closed;
        let node = self.hosts[name].node();
        _ = if is_closed { node.close(Gate::Ejected) } else { node.open(Gate::Ejected) };
    }

    fn is_usable(&self, name: &str) -> bool {
        let is_known = |known: &Known| 0 < known.weight;
        self.known.get(name).is_some_and(is_known) && !self.hosts[name].is_broken()
    }

    fn is_open(&self, name: &str) -> bool {
        self.is_usable(name) && !self.known[name].is_ejected
    }

    /// Whether it may get requests: it is open, or none is open and it is only ejected.
    fn is_available(&self, name: &str) -> bool {
        let fails_open = || self.fail_open && !NAMES.iter().any(|name| self.is_open(name));
        self.is_open(name) || self.is_usable(name) && fails_open()
    }

    fn any(&self, holds: impl Fn(&Host) -> bool) -> bool {
        NAMES.iter().any(|name| self.is_available(name) && holds(&self.hosts[name]))
    }

    fn poll_ready(&mut self, clone: usize) -> std::task::Poll<Result<(), BoxError>> {
        let balance = &mut self.clones[clone];
        tokio_test::task::spawn(()).enter(|cx, _| Service::<u32>::poll_ready(balance, cx))
    }

    fn call(&mut self) {
        if self.calls.len() == MAX_CALLS {
            return self.cancel();
        }
        let clone = self.rng.below(self.clones.len());
        let poll = self.poll_ready(clone);
        assert_eq!(poll.is_ready(), self.any(|_| true), "ready if and only if one is available");
        if let std::task::Poll::Ready(result) = poll {
            result.expect("no call waits that long");
            let call = tokio_test::task::spawn(self.clones[clone].call(1));
            self.calls.push(call);
            if self.poll_call(self.calls.len() - 1) {
                self.calls.pop();
            }
        } else {
            self.counts.not_ready += 1;
        }
    }

    /// Polls a call and checks where it went.
    fn poll_call(&mut self, index: usize) -> bool {
        let calls = |hosts: &BTreeMap<&str, Arc<Host>>| NAMES.map(|name| hosts[name].calls());
        let before = calls(&self.hosts);
        let available = NAMES.map(|name| self.is_available(name));
        let usable = NAMES.map(|name| self.fail_open && self.is_usable(name));
        let ready = NAMES.map(|name| self.hosts[name].readiness() == Readiness::Ready);
        let fails = NAMES.map(|name| self.hosts[name].readiness() == Readiness::Broken);

        let poll = self.calls[index].poll();

        for (index, (before, after)) in before.into_iter().zip(calls(&self.hosts)).enumerate() {
            assert!(after <= before + 1, "one request is sent once");
            if before < after {
                // The last open one may have failed while it was asked.
                let is_left = usable[index] && fails.contains(&true);
                assert!(available[index] || is_left, "{} is removed or closed", NAMES[index]);
                assert!(ready[index], "a request to {}, which is not ready", NAMES[index]);
                self.counts.called += 1;
            }
        }
        if let std::task::Poll::Ready(Err(error)) = &poll {
            assert!(error.is::<crate::balance::probe::Refused>(), "{error}");
            assert!(fails.contains(&true), "an error although no endpoint fails");
            assert!(!(0..8).any(|i| available[i] && ready[i]), "an error while one is ready");
            self.counts.refused += 1;
        }
        poll.is_ready()
    }

    fn poll_woken(&mut self) {
        let mut index = 0;
        while index < self.calls.len() {
            if self.calls[index].is_woken() && self.poll_call(index) {
                drop(self.calls.swap_remove(index));
            } else {
                index += 1;
            }
        }
    }

    fn cancel(&mut self) {
        if !self.calls.is_empty() {
            let index = self.rng.below(self.calls.len());
            drop(self.calls.swap_remove(index));
        }
    }

    fn check(&mut self) {
        let in_flight: usize = self.hosts.values().map(|host| host.in_flight()).sum();
        let waiting = self.calls.len() - in_flight;
        self.counts.waited += waiting;
        if self.any(|host| host.readiness() == Readiness::Ready) {
            assert_eq!(waiting, 0, "calls wait while one is available and ready");
        }
        for (name, host) in &self.hosts {
            assert_eq!(host.counted_in_flight(), host.in_flight(), "in flight at {name}");
            let is_known = usize::from(self.known.contains_key(name));
            let held = host.in_flight();
            assert!(host.connections() <= is_known + held, "connections of {name} left open");
        }
    }

    /// A new balancer, after the stream of the old one was closed.
    async fn renew(&mut self) {
        self.calls.clear();
        self.clones.clear();
        tick().await;
        self.check_empty();
        self.world = World::default();
        self.hosts = NAMES.map(|name| (name, self.world.host(name))).into();
        self.hosts.values().for_each(|host| host.answers(Answer::Held));
        self.known.clear();
        self.discovery.begin();
        self.clones.push(self.world.balance(&self.layer));
        self.multiply();
        self.start().await;
    }

    fn check_empty(&self) {
        let nodes: Vec<Arc<Node>> = self.hosts.values().flat_map(|host| host.nodes()).collect();
        assert!(nodes.iter().all(|node| node.in_flight() == 0), "counts return to zero");
        assert_eq!(self.world.connections(), 0, "all services are dropped");
        self.world.assert_contract_kept();
    }

    async fn end(&mut self) {
        self.calls.clear();
        self.clones.clear();
        tick().await;
        self.check_empty();
        let Counts { called, waited, refused, not_ready } = self.counts;
        let enough = [(called, 5_000), (waited, 1_000), (refused, 10), (not_ready, 100)];
        assert!(enough.iter().all(|(count, least)| least < count), "too tame: {:?}", self.counts);
    }
}

/// Says which run failed.
struct Seed<'a>(&'a str, u64);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failed run: policy {}, seed {}", self.0, self.1);
        }
    }
}

fn stress(name: &str, seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let _seed = Seed(name, seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(Stress::new(name, seed).run());
    }
}

macro_rules! survives {
    ($($test:ident: $name:literal, $seeds:expr;)*) => {
        $(
            #[test]
            fn $test() {
                stress($name, $seeds);
            }
        )*
    };
}

survives! {
    round_robin_survives_anything: "round_robin", [1];
    weighted_round_robin_survives_anything: "weighted_round_robin", [2];
    random_survives_anything: "random", [3];
    weighted_random_survives_anything: "weighted_random", [4];
    p2c_survives_anything: "p2c", [5, 6];
    weighted_p2c_survives_anything: "weighted_p2c", [7];
    least_loaded_survives_anything: "least_loaded", [8];
    peak_ewma_survives_anything: "peak_ewma", [9, 10];
    pick_first_survives_anything: "pick_first", [11];
}
