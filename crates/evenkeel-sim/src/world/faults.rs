//! Changes over time: faults, antagonists, and servers that join and leave. Health machines run
//! here too.

use super::{Event, Place, World};
use crate::{
    dice,
    scenario::FaultKind,
    time::{SECOND, START},
};
use evenkeel_core::{observe::Fault as Blame, outcome::Outcome};

/// How many steps a group takes to warm up.
const WARM_UP_STEPS: u32 = 10;

/// The level at this quantile.
pub(super) fn level(levels: &[(f64, f64)], quantile: f64) -> f64 {
    let above = levels.partition_point(|level| level.0 < quantile);
    let Some(&(share, factor)) = levels.get(above) else {
        return levels.last().map_or(1.0, |last| last.1);
    };
    let Some(&(below_share, below)) = above.checked_sub(1).and_then(|below| levels.get(below))
    else {
        return factor;
    };
    below + (factor - below) * (quantile - below_share) / (share - below_share)
}

impl World<'_> {
    pub(super) fn plan_groups(&mut self) {
        for (group, servers) in (0..).zip(&self.scenario.servers) {
            for (fault, of_group) in (0..).zip(&servers.faults) {
                let at = START + of_group.at.nanos();
                self.queue.add(at, Event::FaultBegins { group, fault });
            }
            if let Some(joins) = servers.joins {
                self.queue.add(START + joins.nanos(), Event::Join(group));
            } else if servers.warm_up.is_some() {
                self.queue.add(START, Event::WarmUp { group, step: 0 });
            }
            if let Some(leaves) = servers.leaves {
                self.queue.add(START + leaves.nanos(), Event::Leave(group));
            }
        }
        for server in 0..self.servers.len() as u32 {
            self.plan_antagonist(server);
        }
    }

    fn plan_antagonist(&mut self, server: u32) {
        let group = self.servers[server as usize].group as usize;
        if let Some(antagonist) = &self.scenario.servers[group].antagonist {
            let lasts = antagonist.every.seconds()
                * dice::exponential(&mut self.servers[server as usize].rng);
            let lasts = (lasts * SECOND as f64) as u64 + 1;
            self.queue.add(self.now + lasts, Event::Antagonist(server));
        }
    }

    pub(super) fn change_antagonist(&mut self, number: u32) {
        let server = &mut self.servers[number as usize];
        let antagonist = self.scenario.servers[server.group as usize].antagonist.as_ref();
        let antagonist = antagonist.expect("planned for those that have one");
        server.left = level(&antagonist.levels, server.rng.unit());
        server.set_capacity(self.scenario, self.now);
        self.plan_end(number);
        self.plan_antagonist(number);
    }

    fn members(&self, group: u32) -> Vec<u32> {
        let numbered = (0..).zip(&self.servers);
        numbered.filter(|(_, server)| server.group == group).map(|(number, _)| number).collect()
    }

    fn struck_servers(&self, group: u32, fault: u32) -> Vec<u32> {
        let fault = &self.scenario.servers[group as usize].faults[fault as usize];
        let most = fault.servers.unwrap_or(u32::MAX);
        let mut members = self.members(group);
        members.retain(|member| self.servers[*member as usize].number < most);
        members
    }

    pub(super) fn begin_fault(&mut self, group: u32, number: u32) {
        let fault = &self.scenario.servers[group as usize].faults[number as usize];
        for server in self.struck_servers(group, number) {
            self.servers[server as usize].faults |= 1 << number;
            self.servers[server as usize].set_capacity(self.scenario, self.now);
            self.plan_end(server);
            if fault.kind == FaultKind::Refuses {
                self.drop_requests(server);
            }
        }
        if let Some(lasts) = fault.lasts {
            let event = Event::FaultEnds { group, fault: number };
            self.queue.add(self.now + lasts.nanos(), event);
        }
        if let Some(every) = fault.every {
            let event = Event::FaultBegins { group, fault: number };
            self.queue.add(self.now + every.nanos(), event);
        }
    }

    pub(super) fn end_fault(&mut self, group: u32, number: u32) {
        for server in self.struck_servers(group, number) {
            self.servers[server as usize].faults &= !(1 << number);
            self.servers[server as usize].set_capacity(self.scenario, self.now);
            self.plan_end(server);
        }
    }

    /// Loses all requests of a server: their connections are reset.
    fn drop_requests(&mut self, server: u32) {
        let here = |attempt: &super::Try| attempt.server == server && attempt.place != Place::Away;
        let lost: Vec<_> = self
            .tries
            .iter()
            .filter(|(_, attempt)| here(attempt))
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in lost {
            let attempt = self.tries.find_mut(ticket).expect("found above");
            (attempt.outcome, attempt.fault) = (Outcome::Failure, Blame::Local);
            if attempt.place == Place::Works {
                attempt.place = Place::Idle;
                let machine = &mut self.servers[server as usize].machine;
                machine.cancel(self.now, ticket, |other| other != ticket);
                machine.remove(ticket);
            }
            self.answer(ticket);
        }
        self.plan_end(server);
    }

    pub(super) fn warm_up(&mut self, group: u32, step: u32) {
        let Some(warm_up) = self.scenario.servers[group as usize].warm_up else { return };
        let share = f64::from(step) / f64::from(WARM_UP_STEPS);
        let warmth = warm_up.from.0 + (1.0 - warm_up.from.0) * share;
        for server in self.members(group) {
            self.servers[server as usize].warmth = warmth;
            self.servers[server as usize].set_capacity(self.scenario, self.now);
            self.plan_end(server);
        }
        if step < WARM_UP_STEPS {
            let pause = warm_up.over.nanos() / u64::from(WARM_UP_STEPS);
            self.queue.add(self.now + pause, Event::WarmUp { group, step: step + 1 });
        }
    }

    pub(super) fn join(&mut self, group: u32) {
        let joining = self.members(group);
        for server in &joining {
            self.servers[*server as usize].is_listed = true;
        }
        let listed = self.servers.iter().filter(|server| server.is_listed).count();
        let subset = self.scenario.clients.subset as usize;
        // A client that knows a part of the servers learns of the same part of the new ones.
        let share = if subset == 0 { 1.0 } else { subset as f64 / listed as f64 };
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            for server in &joining {
                if share == 1.0 || client.rng.unit() < share {
                    client.join(*server, self.endpoint(*server), &self.clock);
                }
            }
            client.rebuild();
        }
        self.clients = clients;
        self.warm_up(group, 0);
        (0..self.clients.len() as u32).for_each(|client| self.run_health(client));
    }

    pub(super) fn leave(&mut self, group: u32) {
        let leaving = self.members(group);
        for server in &leaving {
            self.servers[*server as usize].is_listed = false;
        }
        for client in &mut self.clients {
            leaving.iter().for_each(|server| client.leave(*server));
            client.rebuild();
        }
    }

    /// Runs a client's health machines, if this is still the planned time.
    pub(super) fn sweep(&mut self, client: u32) {
        if self.clients[client as usize].sweep == self.now {
            self.run_health(client);
        }
    }

    /// Runs what is due in a client's health machines.
    pub(super) fn run_health(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        let Some(watch) = &client.watch else { return };
        let due = watch.sweep().map_or(u64::MAX, |due| due.max(self.now + 1));
        client.sweep = due;
        if due != u64::MAX {
            self.queue.add(due, Event::Sweep(number));
        }
    }

    /// Gives a client's health machines the chance to react to the end of an attempt.
    pub(super) fn react(&mut self, number: u32) {
        let client = &self.clients[number as usize];
        if client.watch.as_ref().is_some_and(|watch| watch.wants_attention()) {
            self.run_health(number);
        }
        if let Some(breakers) = &self.clients[number as usize].breakers {
            for (at, breaker) in breakers.take_due() {
                let event = Event::HalfOpen { client: number, breaker };
                self.queue.add(at.max(self.now), event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_linear_between_those_that_are_named() {
        let levels = [(0.1, 1.0), (0.5, 2.0), (1.0, 4.0)];
        for (quantile, expected) in [(0.0, 1.0), (0.1, 1.0), (0.3, 1.5), (0.5, 2.0), (0.75, 3.0)] {
            assert!((level(&levels, quantile) - expected).abs() < 1e-12, "{quantile}");
        }
    }
}
