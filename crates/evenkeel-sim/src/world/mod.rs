//! One run: clients, servers, and what happens between them.

mod calls;
mod faults;
mod probes;
mod servers;
mod setup;
mod subsets;

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    attempt::Attempt,
    load::Arrival,
    observe::Fault,
    outcome::Outcome,
    policy::{Policy, Ticket as Begun},
    retry::{Progress, Schedule},
    rng::Rng,
};

use self::{probes::Probe, servers::Server};
use crate::{
    client::{Client, Slot},
    dice::Zipf,
    policies::Maker,
    queue::{Lane, Queue},
    report::Report,
    rules::Surroundings,
    scenario::Scenario,
    slab::{Slab, Ticket},
    tally::{Series, Tally},
    time::{Clock, SECOND, START},
    work::WorkLaw,
};

/// What can happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A client calls, or anybody ([`ANYBODY`]).
    Call(u32),
    /// An attempt reaches its server.
    Reach(Ticket),
    /// What a server says without work is ready.
    Refuse(Ticket),
    /// An answer reaches its client.
    Answer(Ticket),
    /// An attempt has taken too long.
    AttemptTimeout(Ticket),
    /// A call has taken too long.
    Deadline(Ticket),
    /// A call gets a second attempt, if it is still under way.
    Hedge(Ticket),
    /// A call makes another attempt.
    Retry(Ticket),
    /// A request may have ended at a server.
    Work(u32),
    /// A fault begins at a group.
    FaultBegins { group: u32, fault: u32 },
    /// It is over.
    FaultEnds { group: u32, fault: u32 },
    /// What antagonists leave a server changes.
    Antagonist(u32),
    /// A group warms up by one step.
    WarmUp { group: u32, step: u32 },
    /// Discovery names a group.
    Join(u32),
    /// Discovery names it no more.
    Leave(u32),
    /// A client looks after its nodes.
    Sweep(u32),
    /// An open breaker of a client is to be tried.
    HalfOpen { client: u32, breaker: u32 },
    /// A client is asked for its probes.
    Probe(u32),
    /// A probe reaches its server.
    ProbeReach(Ticket),
    /// Its answer reaches the client.
    ProbeAnswer(Ticket),
    /// It has taken too long.
    ProbeTimeout(Ticket),
    /// A client's picker does what it does from time to time.
    Tend(u32),
    /// The load changes.
    Step(u32),
    /// From now on it is counted.
    Count,
    /// Requests in flight are looked at.
    Look,
}

/// A call under way.
pub(crate) struct Call {
    client: u32,
    began: u64,
    work: f64,
    key: Option<u32>,
    progress: Progress,
    tried: [u64; TRIED_MAX],
    tried_count: u8,
    attempts: [Option<Ticket>; 2],
    is_hedged: bool,
    /// In which phase it began, if that counts.
    phase: Option<u16>,
}

const TRIED_MAX: usize = 8;

/// An attempt under way.
pub(crate) struct Try {
    attempt: Attempt<Slot>,
    call: Ticket,
    client: u32,
    server: u32,
    began: u64,
    place: Place,
    /// At its server, if that counts for probes.
    arrival: Option<Arrival>,
    arrived: u64,
    outcome: Outcome,
    fault: Fault,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On its way, there or back.
    Away,
    /// At its server, which does no work for it.
    Idle,
    /// At its server, which works for it or will.
    Works,
}

/// Stands for whichever client calls next.
const ANYBODY: u32 = u32::MAX;

/// How often requests in flight are looked at.
const LOOK: u64 = SECOND / 20;

/// After so many events somebody is told how far it has come.
const EVENTS_PER_WORD: u64 = 1 << 16;

/// One run.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    /// One for each zone of clients, or one.
    policies: Vec<Arc<dyn Policy>>,
    clock: Clock,
    now: u64,
    queue: Queue<Event>,
    /// Draws calls alone, so that they are the same whatever policy there is.
    rng: Rng,
    law: WorkLaw,
    zipf: Option<Zipf>,
    schedule: Option<Schedule>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    surroundings: Surroundings,
    calls: Slab<Call>,
    tries: Slab<Try>,
    probes: Slab<Probe>,
    /// Kept for its memory.
    begun: Vec<Begun>,
    hops: Hops,
    deadline: Option<Lane>,
    attempt_timeout: Option<Lane>,
    /// Calls a second, where they come by themselves.
    rate: f64,
    /// So many calls are still to come.
    calls_left: u64,
    is_over: bool,
    connections: Vec<u32>,
    tallies: Vec<Tally>,
    phase: Option<u16>,
    series: Series,
}

/// How long messages travel.
pub(crate) struct Hops {
    within: Lane,
    between: Lane,
    delays: [u64; 2],
    jitter: u64,
    rng: Rng,
}

impl World<'_> {
    /// Runs to the end.
    fn run(&mut self, told: &mut dyn FnMut(f64)) {
        let mut events: u64 = 0;
        while let Some((at, event)) = self.queue.take_next() {
            if self.is_over && self.calls.is_empty() {
                break;
            }
            debug_assert!(self.now <= at, "time went back");
            self.now = at;
            self.clock.set(at);
            self.handle(event);
            events += 1;
            if events.is_multiple_of(EVENTS_PER_WORD) {
                told(self.progress());
            }
        }
        let now = self.now;
        if let Some(phase) = self.phase {
            self.tallies[usize::from(phase)].ended = now;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Call(client) => self.call_comes(client),
            Event::Reach(ticket) => self.reach(ticket),
            Event::Refuse(ticket) => self.refused(ticket),
            Event::Answer(ticket) => self.answered(ticket),
            Event::AttemptTimeout(ticket) => self.attempt_timed_out(ticket),
            Event::Deadline(ticket) => self.deadline_passed(ticket),
            Event::Hedge(ticket) => self.hedge(ticket),
            Event::Retry(ticket) => self.attempt(ticket),
            Event::Work(server) => self.work(server),
            Event::FaultBegins { group, fault } => self.fault_begins(group, fault),
            Event::FaultEnds { group, fault } => self.fault_ends(group, fault),
            Event::Antagonist(server) => self.antagonist_changes(server),
            Event::WarmUp { group, step } => self.warm_up(group, step),
            Event::Join(group) => self.join(group),
            Event::Leave(group) => self.leave(group),
            Event::Sweep(client) => self.sweep(client),
            Event::HalfOpen { client, breaker } => {
                if let Some(breakers) = &self.clients[client as usize].breakers {
                    breakers.try_again(breaker);
                }
            }
            Event::Probe(client) => self.probe_due(client),
            Event::ProbeReach(ticket) => self.probe_reaches(ticket),
            Event::ProbeAnswer(ticket) => self.probe_answered(ticket),
            Event::ProbeTimeout(ticket) => self.probe_timed_out(ticket),
            Event::Tend(client) => self.tend(client),
            Event::Step(step) => self.step(step as usize),
            Event::Count => self.phase = Some(0),
            Event::Look => self.look(),
        }
    }

    /// How far it has come, from 0 to 1.
    fn progress(&self) -> f64 {
        let load = &self.scenario.load;
        let elapsed = (self.now - START) as f64 / SECOND as f64;
        let of_time = self.duration().map_or(0.0, |lasts| elapsed / lasts.as_secs_f64());
        let of_calls = load.calls.map_or(0.0, |calls| 1.0 - self.calls_left as f64 / calls as f64);
        of_time.max(of_calls).min(1.0)
    }

    fn duration(&self) -> Option<Duration> {
        let load = &self.scenario.load;
        let of_steps = load.steps.iter().map(|step| step.lasts.0).sum();
        if load.steps.is_empty() { load.lasts.map(|lasts| lasts.0) } else { Some(of_steps) }
    }

    fn tally(&mut self, phase: Option<u16>) -> Option<&mut Tally> {
        phase.map(|phase| &mut self.tallies[usize::from(phase)])
    }

    fn step(&mut self, step: usize) {
        let steps = &self.scenario.load.steps;
        if let Some(phase) = self.phase.take() {
            self.tallies[usize::from(phase)].ended = self.now;
        }
        // Every step is told twice: when it begins, and when it is counted.
        let (index, is_counted) = (step / 2, step % 2 == 1);
        let Some(step) = steps.get(index) else {
            self.is_over = true;
            return;
        };
        if is_counted {
            self.phase = Some(index as u16);
            self.tallies[index].began = self.now;
        } else {
            let rate = step.rate.or(step.utilization.map(|share| self.scenario.rate_of(share)));
            self.rate = rate.expect("checked: one of the two").0;
        }
    }

    fn look(&mut self) {
        if let Some(phase) = self.phase {
            let tally = &mut self.tallies[usize::from(phase)];
            for server in self.servers.iter().filter(|server| server.is_listed) {
                tally.in_flight.record(server.in_flight.into()).expect("the histogram grows");
            }
        }
        if !self.is_over {
            self.queue.add(self.now + LOOK, Event::Look);
        }
    }
}

/// Runs a scenario with a policy to its end, and reports. `told` hears how far it has come, from 0 to 1.
///
/// The same scenario, seed included, and the same policy give the same report.
#[must_use]
pub fn simulate(
    scenario: &Scenario,
    label: &str,
    maker: &Maker,
    told: &mut dyn FnMut(f64),
) -> Report {
    let mut world = World::new(scenario, maker);
    world.run(told);
    world.report(label)
}
