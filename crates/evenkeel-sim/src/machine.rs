//! One server: how it shares its cores among its requests.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

use serde::Deserialize;

use crate::{slab::Ticket, time::SECOND};

/// How a server shares its cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discipline {
    /// All requests run at once. If there are more requests than cores, each gets an equal part.
    #[default]
    ProcessorSharing,
    /// Requests run in the order of arrival, as many at a time as there are cores.
    Fifo,
}

/// One server. Work is counted in seconds of one core at pace 1.
///
/// All running requests progress at the same rate, so one sum says how far each has come: a request
/// that joins at sum `s` with work `w` ends when the sum is `s + w`. Processor sharing therefore
/// costs only the logarithm of the number of requests.
#[derive(Debug)]
pub struct Machine {
    discipline: Discipline,
    cores: f64,
    pace: f64,
    /// Work that each running request has received so far.
    done: f64,
    updated: u64,
    running: BinaryHeap<Reverse<Job>>,
    /// How many of `running` were not cancelled.
    live: u32,
    waiting: VecDeque<(Ticket, f64)>,
    /// Core-seconds used so far.
    busy: f64,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    ends: f64,
    ticket: Ticket,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ends.total_cmp(&other.ends)
    }
}

/// Work below this counts as done, because sums of floating-point numbers are not exact.
const NOTHING: f64 = 1e-10;

impl Machine {
    /// A server with this many cores of this pace.
    #[must_use]
    pub fn new(discipline: Discipline, cores: f64, pace: f64) -> Self {
        Self {
            discipline,
            cores,
            pace,
            done: 0.0,
            updated: 0,
            running: BinaryHeap::new(),
            live: 0,
            waiting: VecDeque::new(),
            busy: 0.0,
        }
    }

    /// Sets the number of cores and their pace.
    pub fn set_capacity(&mut self, now: u64, cores: f64, pace: f64) {
        self.advance(now);
        (self.cores, self.pace) = (cores, pace);
    }

    /// Accepts a request.
    pub fn admit(&mut self, now: u64, ticket: Ticket, work: f64) {
        self.advance(now);
        if self.discipline == Discipline::Fifo && self.slots() <= self.live {
            self.waiting.push_back((ticket, work));
        } else {
            self.start(ticket, work);
        }
    }

    /// Updates the machine after a request was cancelled. Its ticket must not be live any more.
    pub fn cancel(&mut self, now: u64, ticket: Ticket, is_live: impl Fn(Ticket) -> bool) {
        self.advance(now);
        let is_running = match self.discipline {
            Discipline::ProcessorSharing => true,
            Discipline::Fifo => self.running.iter().any(|Reverse(job)| job.ticket == ticket),
        };
        if is_running {
            self.live -= 1;
            self.refill(is_live);
        }
    }

    /// Removes a cancelled request whose ticket stays live.
    pub fn remove(&mut self, ticket: Ticket) {
        self.running.retain(|Reverse(job)| job.ticket != ticket);
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    /// Takes a request that has ended by `now`.
    pub fn finished(&mut self, now: u64, is_live: impl Fn(Ticket) -> bool) -> Option<Ticket> {
        self.advance(now);
        while let Some(Reverse(job)) = self.running.peek().copied() {
            let is_cancelled = !is_live(job.ticket);
            if !is_cancelled && self.done + NOTHING < job.ends {
                break;
            }
            self.running.pop();
            if !is_cancelled {
                self.live -= 1;
                self.refill(is_live);
                return Some(job.ticket);
            }
        }
        None
    }

    /// When the next request ends if nothing changes. The request may end later, but never earlier.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let Reverse(job) = self.running.peek()?;
        let rate = self.rate();
        if rate <= 0.0 {
            return None;
        }
        let seconds = (job.ends - self.done).max(0.0) / rate;
        Some(self.updated + (seconds * SECOND as f64).ceil() as u64)
    }

    /// Core-seconds used until now.
    pub fn busy(&mut self, now: u64) -> f64 {
        self.advance(now);
        self.busy
    }

    fn start(&mut self, ticket: Ticket, work: f64) {
        if self.live == 0 {
            // Smaller sums are more exact.
            self.running.clear();
            self.done = 0.0;
        }
        self.live += 1;
        self.running.push(Reverse(Job { ends: self.done + work, ticket }));
    }

    fn refill(&mut self, is_live: impl Fn(Ticket) -> bool) {
        while self.live < self.slots() {
            let Some((ticket, work)) = self.waiting.pop_front() else { return };
            if is_live(ticket) {
                self.start(ticket, work);
            }
        }
    }

    fn slots(&self) -> u32 {
        (self.cores.round() as u32).max(1)
    }

    /// Work that each running request gets done per second.
    fn rate(&self) -> f64 {
        let live = f64::from(self.live);
        if live <= self.cores { self.pace } else { self.pace * self.cores / live }
    }

    fn advance(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.updated) as f64 / SECOND as f64;
        self.updated = now.max(self.updated);
        if 0 < self.live {
            self.done += elapsed * self.rate();
            self.busy += elapsed * f64::from(self.live).min(self.cores);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    fn end(machine: &mut Machine) -> (u64, Ticket) {
        let at = machine.next_end().unwrap();
        (at, machine.finished(at, |_| true).unwrap())
    }

    fn tickets() -> [Ticket; 3] {
        let mut slab = Slab::new();
        [slab.add(()), slab.add(()), slab.add(())]
    }

    #[test]
    fn one_core_is_shared_equally() {
        let [a, b, _] = tickets();
        let mut machine = Machine::new(Discipline::ProcessorSharing, 1.0, 1.0);
        machine.admit(0, a, 1.0);
        machine.admit(SECOND / 2, b, 1.0);

        assert_eq!(end(&mut machine), (3 * SECOND / 2, a), "half alone, half at half the rate");
        assert_eq!(end(&mut machine), (2 * SECOND, b));
        assert!((machine.busy(2 * SECOND) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_request_has_no_use_for_a_second_core() {
        let [a, ..] = tickets();
        let mut machine = Machine::new(Discipline::ProcessorSharing, 6.4, 2.0);
        machine.admit(0, a, 1.0);
        assert_eq!(end(&mut machine), (SECOND / 2, a));
    }

    #[test]
    fn first_come_is_first_served() {
        let [a, b, c] = tickets();
        let mut machine = Machine::new(Discipline::Fifo, 1.0, 1.0);
        for (ticket, work) in [(a, 1.0), (b, 0.1), (c, 0.1)] {
            machine.admit(0, ticket, work);
        }
        machine.cancel(SECOND / 2, b, |ticket| ticket != b);

        let at = machine.next_end().unwrap();
        assert_eq!(machine.finished(at, |ticket| ticket != b), Some(a));
        let at = machine.next_end().unwrap();
        assert_eq!((at, machine.finished(at, |ticket| ticket != b)), (SECOND * 11 / 10, Some(c)));
    }

    #[test]
    fn a_cancelled_request_makes_room_at_once() {
        let [a, b, _] = tickets();
        let mut machine = Machine::new(Discipline::ProcessorSharing, 1.0, 1.0);
        machine.admit(0, a, 1.0);
        machine.admit(0, b, 1.0);
        machine.cancel(SECOND, a, |ticket| ticket != a);

        let at = machine.next_end().unwrap();
        assert_eq!(at, 3 * SECOND / 2);
        assert_eq!(machine.finished(at, |ticket| ticket != a), Some(b));
        assert_eq!(machine.next_end(), None);
    }

    #[test]
    fn a_request_on_a_machine_without_capacity_does_not_end() {
        let [a, ..] = tickets();
        let mut machine = Machine::new(Discipline::ProcessorSharing, 1.0, 1.0);
        machine.admit(0, a, 1.0);
        machine.set_capacity(SECOND / 2, 1.0, 0.0);
        assert_eq!(machine.next_end(), None);
        machine.set_capacity(SECOND, 1.0, 1.0);
        assert_eq!(end(&mut machine), (3 * SECOND / 2, a));
    }
}
