//! The events of servers.

use evenkeel_core::{observe::Fault, outcome::Outcome, rng::Rng, time::Timestamp};

use super::{
    Event, Place, World,
    probes::Knowledge,
    zones::{zone_number, zones},
};
use crate::{
    machine::Machine,
    remembered::Remembered,
    scenario::{FaultKind, Scenario},
    slab::Ticket,
};

/// One server.
pub(crate) struct Server {
    pub(super) group: u32,
    /// Its number within its group.
    pub(super) number: u32,
    pub(super) zone: u16,
    pub(super) machine: Machine,
    pub(super) in_flight: u32,
    /// Whether discovery lists the server.
    pub(super) is_listed: bool,
    /// The active faults, one bit for each fault of the group.
    pub(super) faults: u32,
    /// The share of cores or pace that antagonists leave.
    pub(super) left: f64,
    /// How warm the server is, as a share of its full pace.
    pub(super) warmth: f64,
    remembered: Option<Remembered>,
    /// A generator of its own, so that antagonists do the same whatever clients do.
    pub(super) rng: Rng,
    pub(super) knowledge: Knowledge,
    /// When the server checks next whether a request has ended.
    wakes: u64,
}

impl Server {
    pub(super) fn of_scenario(scenario: &Scenario, rng: &mut Rng) -> Vec<Self> {
        let zones = zones(scenario);
        let mut servers = Vec::with_capacity(scenario.server_count());
        for (group, of_group) in (0..).zip(&scenario.servers) {
            for number in 0..of_group.count {
                let levels = of_group.antagonist.as_ref().map(|antagonist| &antagonist.levels);
                let mut rng = rng.fork();
                let left = levels.map_or(1.0, |levels| super::faults::level(levels, rng.unit()));
                let mut server = Self {
                    group,
                    number,
                    zone: zone_number(&zones, of_group.zone.as_ref()),
                    machine: Machine::new(of_group.queue, of_group.cores.0, of_group.pace.0),
                    in_flight: 0,
                    is_listed: of_group.joins.is_none(),
                    faults: 0,
                    left,
                    warmth: of_group.warm_up.map_or(1.0, |warm_up| warm_up.from.0),
                    remembered: scenario
                        .keys
                        .map(|keys| Remembered::new(keys.count, keys.remembered)),
                    rng,
                    knowledge: Knowledge::default(),
                    wakes: u64::MAX,
                };
                server.set_capacity(scenario, crate::time::START);
                servers.push(server);
            }
        }
        servers
    }

    /// Sets the capacity that faults, antagonists and warming up leave.
    pub(super) fn set_capacity(&mut self, scenario: &Scenario, now: u64) {
        let group = &scenario.servers[self.group as usize];
        let mut pace = group.pace.0 * self.warmth;
        for (bit, fault) in group.faults.iter().enumerate() {
            if self.faults >> bit & 1 != 0 && fault.kind == FaultKind::Slow {
                pace *= fault.pace.0;
            }
        }
        let mut cores = group.cores.0;
        if group.antagonist.as_ref().is_some_and(|antagonist| antagonist.slows) {
            pace *= self.left;
        } else {
            cores *= self.left;
        }
        self.machine.set_capacity(now, cores, pace);
    }
}

impl World<'_> {
    /// Delivers an attempt to its server.
    pub(super) fn reach(&mut self, ticket: Ticket) {
        let Some(attempt) = self.tries.find_mut(ticket) else { return };
        let (number, call) = (attempt.server, attempt.call);
        let call = self.calls.find(call).expect("an attempt has a call");
        let (mut work, key) = (call.work, call.key);
        let server = &mut self.servers[number as usize];
        let group = &self.scenario.servers[server.group as usize];
        let active =
            group.faults.iter().enumerate().filter(|(bit, _)| server.faults >> bit & 1 != 0);
        let mut hangs = false;
        let mut refusal = None;
        for (_, fault) in active {
            match fault.kind {
                FaultKind::Hangs => hangs = true,
                FaultKind::Refuses => refusal = Some((fault.after, Fault::Local)),
                FaultKind::Fails if server.rng.unit() < fault.share.0 => {
                    refusal = Some((fault.after, Fault::Server));
                }
                FaultKind::Fails | FaultKind::Slow => {}
            }
        }
        attempt.place = Place::Idle;
        attempt.arrived = self.now;
        attempt.arrival = server.knowledge.enter();
        server.in_flight += 1;
        let in_flight = server.in_flight;
        self.surroundings.server(number).set_in_flight(in_flight);
        if let Some(tally) = self.phase.map(|phase| &mut self.tallies[usize::from(phase)]) {
            tally.in_flight_max = tally.in_flight_max.max(in_flight);
        }
        if hangs {
            return;
        }
        if let Some((after, fault)) = refusal {
            (attempt.outcome, attempt.fault) = (Outcome::Failure, fault);
            let lane = self.queue.lane(after.nanos());
            self.queue.add_after(lane, self.now, Event::Refuse(ticket));
            return;
        }
        if let (Some(remembered), Some(key), Some(keys)) =
            (&mut server.remembered, key, self.scenario.keys)
            && !remembered.touch(key)
        {
            work *= keys.miss.0;
        }
        attempt.place = Place::Works;
        server.machine.admit(self.now, ticket, work);
        self.plan_end(number);
    }

    /// Sends an answer that needs no work.
    pub(super) fn answer_without_work(&mut self, ticket: Ticket) {
        let Some(attempt) = self.tries.find_mut(ticket) else { return };
        // A server that has begun to refuse connections has answered it already.
        if attempt.place == Place::Idle {
            self.answer(ticket);
        }
    }

    /// Ends the request of a server that is due, if there is one.
    pub(super) fn work(&mut self, number: u32) {
        let server = &mut self.servers[number as usize];
        if server.wakes != self.now {
            return;
        }
        server.wakes = u64::MAX;
        loop {
            let tries = &self.tries;
            let machine = &mut self.servers[number as usize].machine;
            let Some(ticket) = machine.finished(self.now, |ticket| tries.find(ticket).is_some())
            else {
                break;
            };
            self.servers[number as usize].knowledge.complete();
            self.answer(ticket);
        }
        self.plan_end(number);
    }

    /// Removes a request from its server, and sends the answer.
    pub(super) fn answer(&mut self, ticket: Ticket) {
        let attempt = self.tries.find_mut(ticket).expect("it is live");
        attempt.place = Place::Away;
        if let Some(arrival) = attempt.arrival.take()
            && attempt.outcome == Outcome::Success
        {
            let took = std::time::Duration::from_nanos(self.now - attempt.arrived);
            arrival.record_success(took, Timestamp::from_nanos(self.now));
        }
        let (client, server) = (attempt.client, attempt.server);
        self.count_departure(server);
        self.send(client, server, Event::Answer(ticket));
    }

    /// Sends a message between a client and a server.
    pub(super) fn send(&mut self, client: u32, server: u32, event: Event) {
        let is_near = self.clients[client as usize].zone == self.servers[server as usize].zone;
        if self.hops.jitter == 0 {
            let lane = if is_near { self.hops.within } else { self.hops.between };
            self.queue.add_after(lane, self.now, event);
        } else {
            let delay = self.hops.delays[usize::from(!is_near)];
            let jitter = self.hops.rng.below_u64(self.hops.jitter);
            self.queue.add(self.now + delay + jitter, event);
        }
    }

    fn count_departure(&mut self, number: u32) {
        let server = &mut self.servers[number as usize];
        server.in_flight -= 1;
        self.surroundings.server(number).set_in_flight(server.in_flight);
    }

    /// Removes a request from its server before it has ended there. Its ticket becomes invalid.
    pub(super) fn cancel_at_server(&mut self, number: u32, ticket: Ticket, place: Place) {
        if place == Place::Away {
            return;
        }
        self.count_departure(number);
        if place == Place::Idle {
            return;
        }
        let tries = &self.tries;
        let machine = &mut self.servers[number as usize].machine;
        machine.cancel(self.now, ticket, |ticket| tries.find(ticket).is_some());
        self.plan_end(number);
    }

    /// Plans an event for the end of the next request. If the end moves to a later time, the event
    /// finds nothing and plans the next one.
    pub(super) fn plan_end(&mut self, number: u32) {
        let server = &mut self.servers[number as usize];
        if let Some(next) = server.machine.next_end()
            && next < server.wakes
        {
            server.wakes = next;
            self.queue.add(next, Event::Work(number));
        }
    }
}
