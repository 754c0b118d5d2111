//! A server's measurement of its own load.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use evenkeel_core::load::{Arrival, LoadEstimate, LoadReport, Rates, ServerLoad};

use crate::clock;

/// The most metrics of the application.
const MAX_OWN_METRICS: usize = 64;

/// A server's measurement of its own load, for its reports. Clones share it.
///
/// [`ReportLoadLayer`](super::ReportLoadLayer) counts requests into it. The application adds what only it
/// knows:
///
/// ```
/// use evenkeel::http::LoadMeter;
///
/// let meter = LoadMeter::new();
/// meter.application_utilization(0.6);
/// assert!(meter.metric("queue_length", 12.0));
/// assert_eq!(meter.report().named_metrics["queue_length"], 12.0);
/// ```
#[derive(Clone)]
pub struct LoadMeter(Arc<Inner>);

struct Inner {
    estimate: Arc<LoadEstimate>,
    rates: Rates,
    own: Mutex<LoadReport>,
    #[cfg(feature = "orca")]
    system: Option<super::system::System>,
}

impl LoadMeter {
    /// Measures requests in flight, latency, and requests and errors per second.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            estimate: Arc::default(),
            rates: Rates::new(clock::now()),
            own: Mutex::default(),
            #[cfg(feature = "orca")]
            system: None,
        }))
    }

    /// The same, and how much of its CPUs and memory the process uses, if the system says so (Linux).
    ///
    /// These are read when a report is made, at most once a second. Values that the application
    /// [sets](Self::cpu_utilization) come first.
    #[cfg(feature = "orca")]
    #[must_use]
    pub fn with_system() -> Self {
        Self(Arc::new(Inner {
            estimate: Arc::default(),
            rates: Rates::new(clock::now()),
            own: Mutex::default(),
            system: Some(super::system::System::new(clock::now())),
        }))
    }

    /// The number of requests that have arrived and have not been answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.estimate.in_flight()
    }

    /// The current answer to a probe.
    #[must_use]
    pub fn load(&self) -> ServerLoad {
        self.0.estimate.load(clock::now())
    }

    /// The current report.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        let now = clock::now();
        let mut report = self.own().clone();
        (report.requests_per_second, report.errors_per_second) = self.0.rates.read(now);
        report.server_load = Some(self.0.estimate.load(now));
        #[cfg(feature = "orca")]
        if let Some(system) = &self.0.system {
            system.complete(&mut report, now);
        }
        report
    }

    /// Sets how loaded the application is: 1 at full load. It comes before the CPU utilization.
    pub fn application_utilization(&self, utilization: f64) {
        self.own().application_utilization = utilization;
    }

    /// Sets how much of its CPUs the application uses: 1 for all that it may use.
    pub fn cpu_utilization(&self, utilization: f64) {
        self.own().cpu_utilization = utilization;
    }

    /// Sets how much of its memory the application uses: 1 for all that it may use.
    pub fn memory_utilization(&self, utilization: f64) {
        self.own().memory_utilization = utilization;
    }

    /// Sets a metric of the application, and returns whether there was room: there may be 64.
    pub fn metric(&self, name: impl Into<String>, value: f64) -> bool {
        let (name, mut own) = (name.into(), self.own());
        let has_room =
            own.named_metrics.len() < MAX_OWN_METRICS || own.named_metrics.contains_key(&name);
        if has_room {
            own.named_metrics.insert(name, value);
        }
        has_room
    }

    /// Stops reporting a metric.
    pub fn remove_metric(&self, name: &str) {
        self.own().named_metrics.remove(name);
    }

    /// A request has arrived. It is in flight until the returned value is dropped.
    pub(super) fn enter(&self) -> Arrival {
        self.0.estimate.enter()
    }

    /// A request was answered.
    pub(super) fn count(&self, has_failed: bool) {
        self.0.rates.count(has_failed);
    }

    fn own(&self) -> MutexGuard<'_, LoadReport> {
        self.0.own.lock().expect("no panic under the lock")
    }
}

impl Default for LoadMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LoadMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadMeter").field("load", &self.load()).finish_non_exhaustive()
    }
}
