//! The counts of a run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::{BoxError, clock};

/// Requests are counted in intervals of this length, for the picture over time.
pub(crate) const STRETCH: Duration = Duration::from_millis(500);

/// The counts of a run, shared by the code that counts and the code that shows them.
pub(crate) struct Stats {
    start: Instant,
    stopped: AtomicBool,
    pub(crate) stop_signal: Notify,
    counts: Mutex<Counts>,
}

/// All counts so far.
pub(crate) struct Counts {
    pub(crate) endpoints: BTreeMap<usize, EndpointCounts>,
    numbers: HashMap<String, usize>,
    pub(crate) latencies: Histogram<u64>,
    /// The counts of the last complete interval, and of the current one.
    pub(crate) latencies_recent: [Histogram<u64>; 2],
    stretch: usize,
    pub(crate) calls: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) events: Vec<(Duration, String)>,
}

/// The counts of one endpoint.
pub(crate) struct EndpointCounts {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) served: u64,
    pub(crate) served_by_stretch: Vec<u64>,
    pub(crate) latencies: Histogram<u64>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        let counts = Counts {
            endpoints: BTreeMap::new(),
            numbers: HashMap::new(),
            latencies: histogram(),
            latencies_recent: [histogram(), histogram()],
            stretch: 0,
            calls: 0,
            errors: BTreeMap::new(),
            events: Vec::new(),
        };
        Self {
            start: clock::now(),
            stopped: AtomicBool::new(false),
            stop_signal: Notify::new(),
            counts: Mutex::new(counts),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no panic under the lock")
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Counts one call as its caller saw it.
    pub(crate) fn record(&self, result: Result<String, BoxError>, latency: Duration) {
        let stretch = (self.elapsed().as_nanos() / STRETCH.as_nanos()) as usize;
        let micros = latency.as_micros() as u64;
        let mut counts = self.lock();
        counts.calls += 1;
        counts.turn_to(stretch);
        counts.latencies.saturating_record(micros);
        counts.latencies_recent[1].saturating_record(micros);
        match result {
            Ok(name) => counts.served(&name, stretch, micros),
            Err(error) => *counts.errors.entry(chain(&*error)).or_default() += 1,
        }
    }

    /// Notes an event of an endpoint.
    pub(crate) fn note(&self, name: &str, state: &str, event: &str) {
        let elapsed = self.elapsed();
        let mut counts = self.lock();
        counts.endpoint(name).state = state.to_owned();
        counts.events.push((elapsed, format!("{name} {event}")));
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop_signal.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(crate) fn errors_seen(&self) -> u64 {
        self.errors.values().sum()
    }

    fn served(&mut self, name: &str, stretch: usize, micros: u64) {
        let endpoint = self.endpoint(name);
        endpoint.served += 1;
        if endpoint.served_by_stretch.len() <= stretch {
            endpoint.served_by_stretch.resize(stretch + 1, 0);
        }
        endpoint.served_by_stretch[stretch] += 1;
        endpoint.latencies.saturating_record(micros);
    }

    /// The endpoint of this name. Endpoints are in the order of their first event.
    fn endpoint(&mut self, name: &str) -> &mut EndpointCounts {
        let next = self.numbers.len();
        let number = *self.numbers.entry(name.to_owned()).or_insert(next);
        self.endpoints.entry(number).or_insert_with(|| EndpointCounts {
            name: name.to_owned(),
            state: String::new(),
            served: 0,
            served_by_stretch: Vec::new(),
            latencies: histogram(),
        })
    }

    fn turn_to(&mut self, stretch: usize) {
        if self.stretch < stretch {
            self.stretch = stretch;
            self.latencies_recent.swap(0, 1);
            self.latencies_recent[1].reset();
        }
    }
}

/// Microseconds up to a minute, to two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds")
}

/// Formats an error with all its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
