//! The setup of a run, and its report.

use std::sync::Arc;

use evenkeel_core::{
    backoff::Backoff,
    endpoint::Endpoint,
    health::{
        breaker::BreakerRules,
        outlier::{OutlierRules, SlowerThanOthers},
    },
    load::LatencyWindow,
    retry::{Budget, Schedule},
    rng::Rng,
};

use super::{
    ANY_CLIENT, Event, Hops, LOOK, World,
    probes::Knowledge,
    servers::Server,
    subsets::Subsets,
    zones::{zone_number, zones},
};
use crate::{
    client::Client,
    dice::Zipf,
    health::{Breakers, Watch},
    policies::Maker,
    queue::Queue,
    report::{GroupReport, PhaseReport, Report},
    rules::{Surroundings, address_of},
    scenario::{Breaker, Outlier, Positive, Scenario, Servers},
    slab::Slab,
    tally::{Series, Tally},
    time::{Clock, START},
    work::WorkLaw,
};

impl Scenario {
    /// Calls per second that use this share of the servers' capacity.
    #[must_use]
    pub fn rate_of(&self, utilization: Positive) -> Positive {
        let work = WorkLaw::new(&self.work).mean();
        let of_group =
            |servers: &Servers| f64::from(servers.count) * servers.cores.0 * servers.pace.0;
        let capacity: f64 = self.servers.iter().map(of_group).sum();
        Positive::new(utilization.0 * capacity / work)
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.servers.iter().map(|servers| servers.count as usize).sum()
    }

    /// The name of a group of servers.
    #[must_use]
    pub fn group_name(&self, group: usize) -> String {
        let name = &self.servers[group].name;
        if name.is_empty() { format!("group {}", group + 1) } else { name.clone() }
    }
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, maker: &Maker) -> Self {
        let mut rng = Rng::with_seed(scenario.seed);
        let mut queue = Queue::new();
        let network = scenario.network;
        let delays =
            [network.delay.nanos(), network.between_zones.unwrap_or(network.delay).nanos()];
        let hops = Hops {
            within: queue.lane(delays[0]),
            between: queue.lane(delays[1]),
            delays,
            jitter: network.jitter.nanos(),
            rng: rng.fork(),
        };
        let lane = |queue: &mut Queue<Event>, time: crate::scenario::Time| queue.lane(time.nanos());
        let deadline = scenario.call.deadline.map(|time| lane(&mut queue, time));
        let attempt_timeout = scenario.call.attempt_timeout.map(|time| lane(&mut queue, time));
        let servers = Server::of_scenario(scenario, &mut rng);
        let surroundings = Surroundings::new(servers.len());
        let zones = zones(scenario);
        let policies = match &zones[..] {
            [] => vec![maker(&surroundings).into()],
            zones => zones.iter().map(|zone| maker(&surroundings.in_zone(zone)).into()).collect(),
        };
        let load = &scenario.load;
        let rate = load.rate.or(load.utilization.map(|share| scenario.rate_of(share)));
        let mut world = Self {
            clock: Clock::new(),
            now: START,
            law: WorkLaw::new(&scenario.work),
            zipf: scenario.keys.map(|keys| Zipf::new(keys.count, keys.exponent.0)),
            schedule: scenario.retry.map(|retry| Schedule {
                max_attempts: retry.attempts,
                backoff: Backoff::full_jitter(
                    std::time::Duration::from_millis(25),
                    std::time::Duration::from_millis(250),
                ),
                ..Schedule::default()
            }),
            clients: Vec::new(),
            connections: vec![0; servers.len()],
            series: Series::new(scenario.servers.len()),
            tallies: tallies(scenario, servers.len()),
            servers,
            surroundings,
            policies,
            calls: Slab::new(),
            tries: Slab::new(),
            probes: Slab::new(),
            begun: Vec::new(),
            hops,
            deadline,
            attempt_timeout,
            rate: rate.map_or(0.0, |rate| rate.0),
            calls_left: load.calls.unwrap_or(u64::MAX),
            is_over: false,
            phase: None,
            queue,
            rng,
            scenario,
        };
        world.make_clients();
        world.plan();
        world
    }

    fn make_clients(&mut self) {
        let clients = &self.scenario.clients;
        let listed = (0..self.servers.len() as u32)
            .filter(|server| self.servers[*server as usize].is_listed)
            .map(|server| (server, self.endpoint(server)));
        let subsets = Subsets::of(listed);
        let zones = zones(self.scenario);
        for index in 0..clients.count {
            let zone = clients.zones.get(index as usize % clients.zones.len().max(1));
            let zone = zone.map_or(0, |zone| zone_number(&zones, Some(zone)));
            let policy = self.policies[zone as usize].clone();
            let mut client = Client::new(zone, self.rng.fork(), policy);
            self.add_budget_and_health(&mut client);
            let chosen = subsets.choose(clients, index, self.scenario.seed);
            client.reserve(chosen.len());
            for (server, endpoint) in chosen {
                client.join(server, endpoint, &self.clock);
            }
            client.rebuild();
            self.clients.push(client);
        }
        if self.clients.iter().any(Client::is_probing) {
            self.servers.iter_mut().for_each(|server| server.knowledge = Knowledge::estimating());
        }
    }

    fn add_budget_and_health(&mut self, client: &mut Client) {
        let scenario = self.scenario;
        client.budget = scenario
            .retry
            .map(|retry| Budget::share(retry.budget.0).floor_per_second(retry.floor))
            .or(scenario.hedge.map(|hedge| Budget::share(hedge.budget.0)));
        let percentile = scenario.hedge.and_then(|hedge| hedge.percentile);
        client.latency = percentile.map(|percentile| LatencyWindow::new(percentile.0));
        client.watch = scenario
            .outlier
            .map(|outlier| Watch::new(outlier_rules(outlier), self.rng.fork(), self.clock.clone()));
        client.breakers = scenario
            .breaker
            .map(|breaker| Breakers::new(breaker_rules(breaker), self.clock.clone()));
    }

    pub(super) fn endpoint(&self, server: u32) -> Endpoint {
        let group = &self.scenario.servers[self.servers[server as usize].group as usize];
        let endpoint =
            Endpoint::new(address_of(server)).weight(group.weight).priority(group.priority);
        match &group.zone {
            Some(zone) => endpoint.zone(Arc::<str>::from(zone.as_str())),
            None => endpoint,
        }
    }

    /// Plans all events that do not follow from another event.
    fn plan(&mut self) {
        let load = &self.scenario.load;
        let mut at = START;
        for (index, step) in (0..).zip(&load.steps) {
            self.queue.add(at, Event::Step(2 * index));
            self.queue.add(at + step.settles.nanos(), Event::Step(2 * index + 1));
            at += step.lasts.nanos();
        }
        if load.steps.is_empty() {
            self.queue.add(START + load.warm_up.nanos(), Event::Count);
            self.tallies[0].began = START + load.warm_up.nanos();
        }
        if let Some(lasts) = self.duration() {
            self.queue.add(START + crate::time::nanos(lasts), Event::Step(u32::MAX));
        }
        self.queue.add(START + LOOK, Event::Look);
        self.plan_groups();
        for client in 0..self.clients.len() as u32 {
            self.run_health(client);
            self.probe(client);
            self.tend(client);
        }
        match load.concurrency {
            None => self.queue.add(START, Event::Call(ANY_CLIENT)),
            Some(each) => {
                for client in 0..self.clients.len() as u32 {
                    (0..each).for_each(|_| self.queue.add(START, Event::Call(client)));
                }
            }
        }
    }

    pub(super) fn report(mut self, label: &str) -> Report {
        let connections = &self.connections;
        let most = connections.iter().max().copied().unwrap_or(0);
        let sum: u64 = connections.iter().copied().map(u64::from).sum();
        let mean = sum as f64 / connections.len().max(1) as f64;
        let tallies = std::mem::take(&mut self.tallies);
        let phases = tallies.iter().map(|tally| self.phase_report(tally)).collect();
        Report {
            scenario: self.scenario.name.clone(),
            label: label.to_owned(),
            seed: self.scenario.seed,
            phases,
            connections_mean: mean,
            connections_max: most,
            series: (&self.series).into(),
        }
    }

    fn phase_report(&self, tally: &Tally) -> PhaseReport {
        let groups = 0..self.scenario.servers.len();
        let group_report = |group: usize| {
            let of_group = self.servers.iter().zip(&tally.attempts_of);
            let of_group = of_group.filter(|(server, _)| server.group as usize == group);
            let attempts: u64 = of_group.map(|(_, attempts)| u64::from(*attempts)).sum();
            GroupReport { name: self.scenario.group_name(group), attempts }
        };
        PhaseReport::new(tally, groups.map(group_report).collect())
    }
}

fn tallies(scenario: &Scenario, servers: usize) -> Vec<Tally> {
    let steps = &scenario.load.steps;
    if steps.is_empty() {
        return vec![Tally::new(String::new(), servers, START)];
    }
    steps.iter().map(|step| Tally::new(step.name.clone(), servers, START)).collect()
}

fn outlier_rules(outlier: Outlier) -> OutlierRules {
    let mut rules = OutlierRules::default();
    if let Some(errors) = outlier.consecutive_errors {
        rules.consecutive_errors = Some(errors);
    }
    if let Some(interval) = outlier.interval {
        rules.interval = interval.0;
    }
    if let Some(min) = outlier.min_ejection {
        rules.min_ejection = min.0;
        rules.max_ejection = rules.max_ejection.max(min.0);
        rules.ejection_jitter = min.0 / 10;
    }
    if let Some(percent) = outlier.max_ejected_percent {
        rules.max_ejected_percent = percent;
    }
    rules.latency = outlier
        .slower
        .map(|factor| SlowerThanOthers { factor: factor.0, ..SlowerThanOthers::default() });
    rules
}

fn breaker_rules(breaker: Breaker) -> BreakerRules {
    let mut rules = BreakerRules::default();
    if let Some(failures) = breaker.consecutive_failures {
        rules.consecutive_failures = Some(failures);
    }
    if let Some(rate) = breaker.failure_rate {
        rules.failure_rate = Some(rate.0);
    }
    if let Some(min) = breaker.min_open {
        rules.min_open = min.0;
        rules.max_open = rules.max_open.max(min.0);
    }
    rules
}
