//! What a balancer goes by: the settings of its layer.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    discover::Discovery,
    policy::{Policy, SyncPrequal},
};

use super::probes::Probes;

/// The settings of a balancer.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) discovery: Arc<dyn Discovery>,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) max_wait: Duration,
    pub(super) fail_open: bool,
    pub(super) seed: Option<u64>,
    pub(super) probes: Option<Probes>,
    pub(super) ask_first: Option<AskFirst>,
}

/// How endpoints are asked before each request.
#[derive(Clone, Debug)]
pub(super) struct AskFirst {
    pub(super) probes: Probes,
    /// How many endpoints are asked.
    pub(super) count: usize,
    pub(super) choice: Arc<SyncPrequal>,
}
