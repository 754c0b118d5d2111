//! How often endpoints are probed, and how many results it takes to change their state.

use std::time::Duration;

/// How often endpoints are probed, and how many results it takes to change their state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CheckRules {
    /// The time from the end of a probe to the next one, for an endpoint about which nothing is in
    /// doubt. Default 2 s (HAProxy).
    pub interval: Duration,
    /// The same time after a result that contradicts what was known, until that is confirmed or
    /// taken back. Default 500 ms: HAProxy's `fastinter`, Envoy's `unhealthy_edge_interval` and
    /// `healthy_edge_interval`.
    pub interval_edge: Duration,
    /// The same time for endpoints that are known to fail; `None` for [`interval`](Self::interval).
    /// Default `None`. With a longer one, recovered endpoints are found later.
    pub interval_down: Option<Duration>,
    /// The same time while no request has ended at any endpoint for this long; `None` for no
    /// difference. Default `None`, where Envoy has 60 s: to be told of requests costs each of them
    /// some nanoseconds.
    pub interval_idle: Option<Duration>,
    /// Each wait is shorter by a random share of up to this. Default 10 %. It is never longer, so
    /// that the intervals are upper bounds.
    pub jitter_percent: u32,
    /// How long one probe may take. Default 1 s.
    pub timeout: Duration,
    /// How many probes in a row must fail before an endpoint is closed. Default 3 (HAProxy).
    pub fall: u32,
    /// How many probes in a row must pass before it is open again. Default 2 (HAProxy).
    pub rise: u32,
    /// Whether an endpoint gets no request before its first probe has passed, even if all others
    /// look bad and a balancer fails open. Default false.
    pub is_closed_at_first: bool,
    /// How many probes may begin in a second, over all endpoints. Default 500. Probes that are due
    /// and find no room wait in order; endpoints in doubt and the others take turns.
    pub probes_per_second: u32,
    /// Whether an ejection by outlier detection ends when [`rise`](Self::rise) probes in a row
    /// pass. Default true (Envoy's `successful_active_health_check_uneject_host`, for which one is
    /// enough). Set it to false if the probe does not see the faults that requests suffer from.
    pub ends_ejections: bool,
    /// How long the results of an endpoint that has left are kept. Default 5 minutes.
    pub remembered_for: Duration,
    /// For how many endpoints that have left results are kept. Default 4,096.
    pub max_remembered: usize,
}

impl Default for CheckRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            interval_edge: Duration::from_millis(500),
            interval_down: None,
            interval_idle: None,
            jitter_percent: 10,
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            is_closed_at_first: false,
            probes_per_second: 500,
            ends_ejections: true,
            remembered_for: Duration::from_secs(300),
            max_remembered: 4_096,
        }
    }
}

impl CheckRules {
    pub(super) fn check(&self) {
        assert!(Duration::ZERO < self.interval, "probes without a pause");
        assert!(Duration::ZERO < self.interval_edge, "probes without a pause");
        assert!(self.interval_down != Some(Duration::ZERO), "probes without a pause");
        assert!(self.interval_idle != Some(Duration::ZERO), "probes without a pause");
        assert!(self.jitter_percent <= 100, "a wait that is shorter than nothing");
        assert!(Duration::ZERO < self.timeout, "no probe can pass");
        assert!(0 < self.fall, "closed after no failure at all");
        assert!(0 < self.rise, "open after no success at all");
        assert!((1..=1_000_000).contains(&self.probes_per_second), "from 1 to 1,000,000 a second");
    }

    /// How long to wait for the next probe of an endpoint, before jitter.
    pub(super) fn wait(&self, is_doubtful: bool, is_down: bool, is_idle: bool) -> Duration {
        let idle = self.interval_idle.filter(|_| is_idle);
        match (is_doubtful, idle) {
            (true, _) => self.interval_edge,
            (false, Some(idle)) => idle,
            (false, None) if is_down => self.interval_down.unwrap_or(self.interval),
            (false, None) => self.interval,
        }
    }
}
