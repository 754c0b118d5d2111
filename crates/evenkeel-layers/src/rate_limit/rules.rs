//! What a rate limit goes by, besides its limiter.

use std::{sync::Arc, time::Duration};

use evenkeel_core::rng::Seeds;
use evenkeel_metrics::Client;

/// Settings that are not the limiter's.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) max_wait: Duration,
    pub(super) jitter: Duration,
    pub(super) max_throttle: Duration,
    pub(super) seeds: Arc<Seeds>,
    pub(super) client: Client,
}
