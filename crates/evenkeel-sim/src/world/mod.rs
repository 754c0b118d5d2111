//! One run: clients, servers, and what happens between them.

mod calls;
mod faults;
mod probes;
mod servers;
mod setup;
mod subsets;
mod zones;

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

/// The events of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A client makes a call, or any client ([`ANY_CLIENT`]).
    Call(u32),
    /// An attempt reaches its server.
    Reach(Ticket),
    /// A server's answer that needs no work is ready.
    Refuse(Ticket),
    /// An answer reaches its client.
    Answer(Ticket),
    /// An attempt has taken too long.
    AttemptTimeout(Ticket),
    /// A call has taken too long.
    Deadline(Ticket),
    /// A call gets a second attempt, if it is still in flight.
    Hedge(Ticket),
    /// A call makes another attempt.
    Retry(Ticket),
    /// A request may have ended at a server.
    Work(u32),
    /// A fault begins at a group.
    FaultBegins { group: u32, fault: u32 },
    /// The fault ends.
    FaultEnds { group: u32, fault: u32 },
    /// The level of a server's antagonists changes.
    Antagonist(u32),
    /// A group warms up by one step.
    WarmUp { group: u32, step: u32 },
    /// Discovery adds a group.
    Join(u32),
    /// Discovery removes a group.
    Leave(u32),
    /// A client runs its health machines.
    Sweep(u32),
    /// An open breaker of a client is due for a trial.
    HalfOpen { client: u32, breaker: u32 },
    /// A client is asked for probes.
    Probe(u32),
    /// A probe reaches its server.
    ProbeReach(Ticket),
    /// Its answer reaches the client.
    ProbeAnswer(Ticket),
    /// The probe has taken too long.
    ProbeTimeout(Ticket),
    /// A client's picker runs its periodic work.
    Tend(u32),
    /// The load changes.
    Step(u32),
    /// Counting begins.
    Count,
    /// Requests in flight are sampled.
    Look,
}

/// A call in flight.
pub(crate) struct Call {
    client: u32,
    began: u64,
    work: f64,
    key: Option<u32>,
    progress: Progress,
    tried: [u64; MAX_TRIED],
    tried_count: u8,
    attempts: [Option<Ticket>; 2],
    is_hedged: bool,
    /// The phase in which the call began, if it is counted.
    phase: Option<u16>,
}

const MAX_TRIED: usize = 8;

/// An attempt in flight.
pub(crate) struct Try {
    attempt: Attempt<Slot>,
    call: Ticket,
    client: u32,
    server: u32,
    began: u64,
    place: Place,
    /// The request's entry in the server's load estimate, if the policy sends probes.
    arrival: Option<Arrival>,
    arrived: u64,
    outcome: Outcome,
    fault: Fault,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On its way to the server or back.
    Away,
    /// At its server, which does no work for it.
    Idle,
    /// At its server, running or waiting to run.
    Works,
}

/// Stands for any client: the next call picks one.
const ANY_CLIENT: u32 = u32::MAX;

/// How often requests in flight are sampled.
const LOOK: u64 = SECOND / 20;

/// The progress is reported after this many events.
const EVENTS_PER_WORD: u64 = 1 << 16;

/// One run.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    /// One for each zone of clients, or a single one.
    policies: Vec<Arc<dyn Policy>>,
    clock: Clock,
    now: u64,
    queue: Queue<Event>,
    /// Used only for calls, so that they are the same with every policy.
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
    /// Kept to reuse its memory.
    begun: Vec<Begun>,
    hops: Hops,
    deadline: Option<Lane>,
    attempt_timeout: Option<Lane>,
    /// Calls per second, unless clients make a call when one ends.
    rate: f64,
    /// How many calls are still to come.
    calls_left: u64,
    is_over: bool,
    connections: Vec<u32>,
    tallies: Vec<Tally>,
    phase: Option<u16>,
    series: Series,
}

/// Draws how long messages travel.
pub(crate) struct Hops {
    within: Lane,
    between: Lane,
    delays: [u64; 2],
    jitter: u64,
    rng: Rng,
}

impl World<'_> {
    /// Runs the events to the end.
    fn run(&mut self, on_progress: &mut dyn FnMut(f64)) {
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
                on_progress(self.progress());
            }
        }
        let now = self.now;
        if let Some(phase) = self.phase {
            self.tallies[usize::from(phase)].ended = now;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Call(client) => self.begin_call(client),
            Event::Reach(ticket) => self.reach(ticket),
            Event::Refuse(ticket) => self.answer_without_work(ticket),
            Event::Answer(ticket) => self.deliver_answer(ticket),
            Event::AttemptTimeout(ticket) => self.attempt_timed_out(ticket),
            Event::Deadline(ticket) => self.expire_call(ticket),
            Event::Hedge(ticket) => self.hedge(ticket),
            Event::Retry(ticket) => self.attempt(ticket),
            Event::Work(server) => self.work(server),
            Event::FaultBegins { group, fault } => self.begin_fault(group, fault),
            Event::FaultEnds { group, fault } => self.end_fault(group, fault),
            Event::Antagonist(server) => self.change_antagonist(server),
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
            Event::ProbeReach(ticket) => self.answer_probe(ticket),
            Event::ProbeAnswer(ticket) => self.finish_probe(ticket),
            Event::ProbeTimeout(ticket) => self.probe_timed_out(ticket),
            Event::Tend(client) => self.tend(client),
            Event::Step(step) => self.step(step as usize),
            Event::Count => self.phase = Some(0),
            Event::Look => self.look(),
        }
    }

    /// The progress, from 0 to 1.
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
        // Every step has two events: one when it begins, and one when counting begins.
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

/// Runs a scenario with a policy to its end and returns the report. `on_progress` is called with the
/// progress, from 0 to 1.
///
/// The same scenario, seed included, and the same policy give the same report.
#[must_use]
pub fn simulate(
    scenario: &Scenario,
    label: &str,
    maker: &Maker,
    on_progress: &mut dyn FnMut(f64),
) -> Report {
    let mut world = World::new(scenario, maker);
    world.run(on_progress);
    world.report(label)
}
