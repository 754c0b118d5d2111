//! What servers report of their load: in answers to probes, and with other answers.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    load::{Arrival, LoadEstimate, LoadReport, ServerLoad},
    policy::Ticket as Begun,
    time::Timestamp,
};

use super::{Event, World};
use crate::{scenario::FaultKind, slab::Ticket, time::SECOND};

/// A probe in flight.
pub(crate) struct Probe {
    begun: Begun,
    client: u32,
    server: u32,
    answer: Option<ServerLoad>,
}

/// A probe that is not answered within this time has failed (Prequal, section 5).
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(3);

/// What a server knows of its load, as far as clients ask for it.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// For probes.
    estimate: Option<Arc<LoadEstimate>>,
    /// For load reports with answers.
    meter: Meter,
}

/// Calls per second and utilization, measured every second and smoothed.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    since: u64,
    completed: u64,
    completed_before: u64,
    busy_before: f64,
    rate: f64,
    utilization: f64,
}

impl Knowledge {
    pub(super) fn estimating() -> Self {
        Self { estimate: Some(Arc::default()), meter: Meter::default() }
    }

    pub(super) fn enter(&self) -> Option<Arrival> {
        self.estimate.as_ref().map(LoadEstimate::enter)
    }

    pub(super) fn complete(&mut self) {
        self.meter.completed += 1;
    }
}

impl Meter {
    /// The weight of the previous value in each new measurement.
    const KEPT: f64 = 0.7;

    fn report(&mut self, now: u64, busy: f64, cores: f64) -> LoadReport {
        if self.since + SECOND <= now {
            let seconds = (now - self.since) as f64 / SECOND as f64;
            let rate = (self.completed - self.completed_before) as f64 / seconds;
            let utilization = (busy - self.busy_before) / seconds / cores;
            let kept = if self.since == 0 || self.rate == 0.0 { 0.0 } else { Self::KEPT };
            // Before the run began there is nothing to measure.
            if self.since != 0 {
                self.rate = self.rate * kept + rate * (1.0 - kept);
                self.utilization = self.utilization * kept + utilization * (1.0 - kept);
            }
            (self.since, self.completed_before, self.busy_before) = (now, self.completed, busy);
        }
        LoadReport {
            requests_per_second: self.rate,
            cpu_utilization: self.utilization,
            ..LoadReport::default()
        }
    }
}

impl World<'_> {
    /// Sends the probes of a client that are due, and plans when to ask it again.
    pub(super) fn probe(&mut self, number: u32) {
        let now = Timestamp::from_nanos(self.now);
        let mut begun = std::mem::take(&mut self.begun);
        let client = &mut self.clients[number as usize];
        let Some(again) = client.due_probes(now, &mut |ticket| begun.push(ticket)) else {
            self.begun = begun;
            return;
        };
        let again = again.as_nanos().max(self.now + 1);
        // An earlier call may postpone the next one. Only one event is planned.
        let is_planned = self.now < client.probes && client.probes <= again;
        if !is_planned {
            client.probes = again;
            self.queue.add(again, Event::Probe(number));
        }
        for ticket in begun.drain(..) {
            let server = self.clients[number as usize].server(ticket.index());
            let probe = Probe { begun: ticket, client: number, server, answer: None };
            let probe = self.probes.add(probe);
            let lane = self.queue.lane(crate::time::nanos(PROBE_TIMEOUT));
            self.queue.add_after(lane, self.now, Event::ProbeTimeout(probe));
            self.send(number, server, Event::ProbeReach(probe));
        }
        self.begun = begun;
    }

    /// Asks a client for its probes, unless that was postponed.
    pub(super) fn probe_due(&mut self, number: u32) {
        if self.clients[number as usize].probes == self.now && !self.is_over {
            self.probe(number);
        }
    }

    /// Delivers a probe to its server.
    pub(super) fn answer_probe(&mut self, ticket: Ticket) {
        let Some(probe) = self.probes.find_mut(ticket) else { return };
        let server = &self.servers[probe.server as usize];
        let group = &self.scenario.servers[server.group as usize];
        let active =
            group.faults.iter().enumerate().filter(|(bit, _)| server.faults >> bit & 1 != 0);
        let mut kinds = active.map(|(_, fault)| fault.kind);
        if kinds.any(|kind| matches!(kind, FaultKind::Hangs | FaultKind::Refuses)) {
            // A refused probe is treated as one without an answer.
            return;
        }
        let estimate =
            server.knowledge.estimate.as_ref().expect("it exists if the policy sends probes");
        probe.answer = Some(estimate.load(Timestamp::from_nanos(self.now)));
        let (client, server) = (probe.client, probe.server);
        self.send(client, server, Event::ProbeAnswer(ticket));
    }

    /// Delivers the answer of a probe to its client.
    pub(super) fn finish_probe(&mut self, ticket: Ticket) {
        if let Some(Probe { begun, answer: Some(load), .. }) = self.probes.take(ticket) {
            begun.record_answer(load, Timestamp::from_nanos(self.now));
        }
    }

    /// Ends a probe that has taken too long.
    pub(super) fn probe_timed_out(&mut self, ticket: Ticket) {
        if let Some(Probe { begun, .. }) = self.probes.take(ticket) {
            begun.record_failure(Timestamp::from_nanos(self.now));
        }
    }

    /// The load report that a server sends with an answer.
    pub(super) fn report_of(&mut self, number: u32) -> LoadReport {
        let server = &mut self.servers[number as usize];
        let cores = self.scenario.servers[server.group as usize].cores.0;
        let busy = server.machine.busy(self.now);
        server.knowledge.meter.report(self.now, busy, cores)
    }

    /// Runs the periodic work of a client's picker.
    pub(super) fn tend(&mut self, number: u32) {
        let now = Timestamp::from_nanos(self.now);
        if let Some(again) = self.clients[number as usize].tend(now)
            && !self.is_over
        {
            self.queue.add(again.as_nanos().max(self.now + 1), Event::Tend(number));
        }
    }
}
