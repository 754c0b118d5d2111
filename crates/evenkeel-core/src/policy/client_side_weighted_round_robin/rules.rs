//! The settings of the weights.

use std::time::Duration;

/// When reports count, and for how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightRules {
    pub(super) blackout: Duration,
    pub(super) expiration: Duration,
    pub(super) update: Duration,
    pub(super) error_penalty: f64,
}

impl Default for WeightRules {
    fn default() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: 1.0,
        }
    }
}
