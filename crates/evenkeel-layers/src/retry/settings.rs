//! What retries go by: the settings of their layer.

use std::time::Duration;

use evenkeel_core::{
    retry::{Budget, Schedule},
    rng::Seeds,
};
use evenkeel_metrics::Client;

/// The settings of retries.
#[derive(Clone, Debug)]
pub(super) struct Settings<P> {
    pub(super) rules: P,
    pub(super) schedule: Schedule,
    pub(super) budget: Option<Budget>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) seed: Option<u64>,
}

impl<P> Settings<P> {
    pub(super) fn new(rules: P, schedule: Schedule) -> Self {
        Self { rules, schedule, budget: None, attempt_timeout: None, seed: None }
    }
}

/// What the clones of one service share.
#[derive(Debug)]
pub(super) struct Shared<P> {
    pub(super) settings: Settings<P>,
    pub(super) seeds: Seeds,
    pub(super) client: Client,
}
