//! The counts of a run.

use hdrhistogram::Histogram;

use crate::time::SECOND;

/// The precision of latency, which is counted in microseconds: three digits.
const DIGITS: u8 = 3;

/// The counts of one phase of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) name: String,
    pub(crate) latency: Histogram<u64>,
    pub(crate) latency_sum: f64,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) attempts: u64,
    pub(crate) wasted: u64,
    /// Attempts from one zone to another.
    pub(crate) crossing: u64,
    pub(crate) attempts_of: Vec<u32>,
    pub(crate) in_flight_max: u32,
    /// Requests in flight at each server, sampled at regular intervals.
    pub(crate) in_flight: Histogram<u64>,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    Failure,
    Timeout,
}

impl Tally {
    pub(crate) fn new(name: String, servers: usize, now: u64) -> Self {
        let histogram = || Histogram::new(DIGITS).expect("three digits are allowed");
        Self {
            name,
            latency: histogram(),
            latency_sum: 0.0,
            calls: 0,
            errors: 0,
            timeouts: 0,
            attempts: 0,
            wasted: 0,
            crossing: 0,
            attempts_of: vec![0; servers],
            in_flight_max: 0,
            in_flight: histogram(),
            began: now,
            ended: now,
        }
    }

    /// Counts a call that ended. A call that failed before its deadline has no meaningful latency.
    pub(crate) fn call(&mut self, end: End, took: u64) {
        self.calls += 1;
        self.errors += u64::from(end != End::Success);
        self.timeouts += u64::from(end == End::Timeout);
        if end != End::Failure {
            self.latency.record(took.div_ceil(1_000)).expect("the histogram grows");
            self.latency_sum += took as f64 / SECOND as f64;
        }
    }
}

/// The counts over time, across all phases.
#[derive(Debug)]
pub(crate) struct Series {
    groups: usize,
    pub(crate) buckets: Vec<Bucket>,
}

/// The counts of one bucket of time.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) calls: u32,
    pub(crate) errors: u32,
    pub(crate) attempts_of: Vec<u32>,
    pub(crate) latency: Histogram<u32>,
}

/// Later buckets are not drawn.
const MAX_BUCKETS: usize = 2_000;

impl Series {
    pub(crate) fn new(groups: usize) -> Self {
        Self { groups, buckets: Vec::new() }
    }

    fn at(&mut self, since_start: u64, width: u64) -> Option<&mut Bucket> {
        let index = (since_start / width) as usize;
        if MAX_BUCKETS <= index {
            return None;
        }
        while self.buckets.len() <= index {
            self.buckets.push(Bucket {
                calls: 0,
                errors: 0,
                attempts_of: vec![0; self.groups],
                latency: Histogram::new(2).expect("two digits are allowed"),
            });
        }
        self.buckets.get_mut(index)
    }

    pub(crate) fn attempt(&mut self, since_start: u64, width: u64, group: usize) {
        if let Some(bucket) = self.at(since_start, width) {
            bucket.attempts_of[group] += 1;
        }
    }

    pub(crate) fn call(&mut self, since_start: u64, width: u64, end: End, took: u64) {
        if let Some(bucket) = self.at(since_start, width) {
            bucket.calls += 1;
            bucket.errors += u32::from(end != End::Success);
            if end != End::Failure {
                bucket.latency.record(took.div_ceil(1_000)).expect("the histogram grows");
            }
        }
    }
}
