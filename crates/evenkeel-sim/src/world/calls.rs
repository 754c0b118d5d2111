//! The events of calls, from the first attempt to the last.

use std::time::Duration;

use evenkeel_core::{
    cut,
    observe::Fault,
    outcome::Outcome,
    retry::{Progress, Reach, Verdict},
    time::Timestamp,
};

use super::{ANY_CLIENT, Call, Event, MAX_TRIED, Place, Try, World};
use crate::{
    dice,
    slab::Ticket,
    tally::End,
    time::{SECOND, START, nanos},
};

impl World<'_> {
    /// Starts a call of a client, and schedules the next one.
    pub(super) fn begin_call(&mut self, client: u32) {
        if self.is_over || self.calls_left == 0 {
            self.is_over = true;
            return;
        }
        self.calls_left -= 1;
        let mut caller = client;
        if client == ANY_CLIENT {
            caller = self.rng.below(self.clients.len()) as u32;
            let pause = dice::exponential(&mut self.rng) / self.rate;
            let next = self.now + (pause * SECOND as f64) as u64;
            self.queue.add(next, Event::Call(ANY_CLIENT));
        }
        let work = self.law.draw(&mut self.rng);
        let key = self.zipf.as_ref().map(|zipf| zipf.draw(&mut self.rng));
        let now = Timestamp::from_nanos(self.now);
        if let Some(budget) = &self.clients[caller as usize].budget {
            budget.deposit(now);
        }
        let call = self.calls.add(Call {
            client: caller,
            began: self.now,
            work,
            key,
            progress: Progress::default(),
            tried: [0; MAX_TRIED],
            tried_count: 0,
            attempts: [None; 2],
            is_hedged: false,
            phase: self.phase,
        });
        if let Some(lane) = self.deadline {
            self.queue.add_after(lane, self.now, Event::Deadline(call));
        }
        self.attempt(call);
        self.plan_hedge(call);
    }

    /// Makes an attempt of a call.
    pub(super) fn attempt(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.find_mut(ticket) else { return };
        let number = call.client;
        let now = Timestamp::from_nanos(self.now);
        let hash = call.key.map(hash_of);
        let tried = &call.tried[..usize::from(call.tried_count)];
        let choice = self.clients[number as usize].choose(now, hash, tried);
        let Some(choice) = choice else {
            if call.attempts == [None; 2] {
                self.end(ticket, End::Failure);
            }
            return;
        };
        if usize::from(call.tried_count) < MAX_TRIED {
            call.tried[usize::from(call.tried_count)] = choice.attempt.node().id();
            call.tried_count += 1;
        }
        let server = choice.server;
        let attempt = self.tries.add(Try {
            attempt: choice.attempt,
            call: ticket,
            client: number,
            server,
            began: self.now,
            place: Place::Away,
            arrival: None,
            arrived: 0,
            outcome: Outcome::Success,
            fault: Fault::Server,
        });
        let free = call.attempts.iter_mut().find(|place| place.is_none());
        *free.expect("at most two attempts at a time") = Some(attempt);
        self.connections[server as usize] += u32::from(choice.is_first);
        let group = self.servers[server as usize].group as usize;
        self.series.attempt(self.now - START, self.scenario.bucket(), group);
        let phase = self.phase;
        let is_crossing = self.clients[number as usize].zone != self.servers[server as usize].zone;
        if let Some(tally) = self.tally(phase) {
            tally.attempts += 1;
            tally.crossing += u64::from(is_crossing);
            tally.attempts_of[server as usize] += 1;
        }
        if let Some(lane) = self.attempt_timeout {
            self.queue.add_after(lane, self.now, Event::AttemptTimeout(attempt));
        }
        self.send(number, server, Event::Reach(attempt));
        self.probe(number);
    }

    /// Delivers an answer to its client.
    pub(super) fn deliver_answer(&mut self, ticket: Ticket) {
        let Some(Try { mut attempt, call, client, server, began, outcome, fault, .. }) =
            self.tries.take(ticket)
        else {
            return;
        };
        if attempt.node().is_reporting() && outcome == Outcome::Success {
            let report = self.report_of(server);
            attempt.node().report_load(&report, Timestamp::from_nanos(self.now));
        }
        attempt.blame(fault);
        attempt.finish(outcome);
        self.react(client);
        let took = std::time::Duration::from_nanos(self.now - began);
        let now = Timestamp::from_nanos(self.now);
        let client = &self.clients[client as usize];
        match (&client.latency, outcome) {
            (Some(latency), Outcome::Success) => latency.record_success(took, now),
            (Some(latency), _) => latency.record_at_least(took, now),
            (None, _) => {}
        }
        if outcome == Outcome::Success {
            if let Some(budget) = &client.budget {
                budget.record_success();
            }
            self.forget(call, ticket);
            self.end(call, End::Success);
        } else {
            self.count_wasted(call);
            let reach = if fault == Fault::Local { Reach::Unprocessed } else { Reach::Processed };
            self.failed(call, ticket, reach, End::Failure);
        }
    }

    /// Drops an attempt that has taken too long.
    pub(super) fn attempt_timed_out(&mut self, ticket: Ticket) {
        let patience = self.scenario.call.attempt_timeout.map_or(Duration::ZERO, |time| time.0);
        if let Some(call) = cut::by_deadline(patience, || self.cut(ticket)) {
            self.failed(call, ticket, Reach::Processed, End::Timeout);
        }
    }

    /// Ends a call that has taken too long.
    pub(super) fn expire_call(&mut self, ticket: Ticket) {
        if self.calls.find(ticket).is_some() {
            let patience = self.scenario.call.deadline.map_or(Duration::ZERO, |time| time.0);
            cut::by_deadline(patience, || self.end(ticket, End::Timeout));
        }
    }

    /// Gives a call its second attempt, if it is still in flight.
    pub(super) fn hedge(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.find_mut(ticket) else { return };
        let is_waiting = call.attempts.iter().flatten().count() == 1;
        let budget = self.clients[call.client as usize].budget.as_ref();
        let now = Timestamp::from_nanos(self.now);
        if !is_waiting || call.is_hedged || budget.is_some_and(|budget| !budget.withdraw(now)) {
            return;
        }
        call.is_hedged = true;
        self.attempt(ticket);
    }

    fn plan_hedge(&mut self, ticket: Ticket) {
        let (Some(hedge), Some(call)) = (self.scenario.hedge, self.calls.find(ticket)) else {
            return;
        };
        let latency = self.clients[call.client as usize].latency.as_ref();
        let percentile = latency.and_then(evenkeel_core::load::LatencyWindow::percentile);
        let least = std::time::Duration::from_millis(1);
        let delay = hedge.after.map(|after| after.0).or(percentile.map(|delay| delay.max(least)));
        if let Some(delay) = delay {
            self.queue.add(self.now + nanos(delay), Event::Hedge(ticket));
        }
    }

    /// Ends a failed attempt. Another attempt may follow if none is in flight.
    fn failed(&mut self, ticket: Ticket, attempt: Ticket, reach: Reach, end: End) {
        self.forget(ticket, attempt);
        let Some(call) = self.calls.find_mut(ticket) else { return };
        if call.attempts != [None; 2] {
            return;
        }
        let Some(schedule) = &self.schedule else { return self.end(ticket, end) };
        let client = &mut self.clients[call.client as usize];
        let budget = client.budget.as_ref();
        if let Some(budget) = budget {
            budget.record_failure();
        }
        let began = Timestamp::from_nanos(call.began);
        let deadline = self.scenario.call.deadline.map(|deadline| began + deadline.0);
        let now = Timestamp::from_nanos(self.now);
        let verdict = Verdict::Again { reach, after: None };
        match schedule.next(&mut call.progress, verdict, budget, now, deadline, &mut client.rng) {
            Ok(delay) => self.queue.add(self.now + nanos(delay), Event::Retry(ticket)),
            Err(_) => self.end(ticket, end),
        }
    }

    /// Ends a call and drops its attempts in flight.
    fn end(&mut self, ticket: Ticket, end: End) {
        let call = self.calls.find(ticket).expect("it ends once");
        for attempt in call.attempts.into_iter().flatten() {
            self.cut(attempt);
        }
        let Call { client, began, phase, .. } = self.calls.take(ticket).expect("it ends once");
        let took = self.now - began;
        if let Some(tally) = self.tally(phase) {
            tally.call(end, took);
        }
        self.series.call(self.now - START, self.scenario.bucket(), end, took);
        if self.scenario.load.concurrency.is_some() && !self.is_over {
            self.queue.add(self.now, Event::Call(client));
        }
    }

    /// Drops an attempt that has not ended, and returns its call.
    fn cut(&mut self, ticket: Ticket) -> Option<Ticket> {
        let Try { attempt, call, client, server, began, place, .. } = self.tries.take(ticket)?;
        drop(attempt);
        self.cancel_at_server(server, ticket, place);
        if let Some(latency) = &self.clients[client as usize].latency {
            let took = std::time::Duration::from_nanos(self.now - began);
            latency.record_at_least(took, Timestamp::from_nanos(self.now));
        }
        self.react(client);
        self.count_wasted(call);
        Some(call)
    }

    fn count_wasted(&mut self, call: Ticket) {
        let phase = self.calls.find(call).and_then(|call| call.phase);
        if let Some(tally) = self.tally(phase) {
            tally.wasted += 1;
        }
    }

    fn forget(&mut self, call: Ticket, attempt: Ticket) {
        if let Some(call) = self.calls.find_mut(call) {
            for place in &mut call.attempts {
                if *place == Some(attempt) {
                    *place = None;
                }
            }
        }
    }
}

/// The hash of a key (the finalizer of SplitMix64).
fn hash_of(key: u32) -> u64 {
    let mut hash = (u64::from(key) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ hash >> 31
}
